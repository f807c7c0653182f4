"""The recipes' text tools, and the check of the data they start from."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT
from dry_runs import recipe

TEXT = ROOT / "scripts/text"


def tool(name: str, *arguments: object, text: str = "", code: int = 0) -> str:
    command = [sys.executable, TEXT / f"{name}.py", *map(str, arguments)]
    done = subprocess.run(command, input=text.encode(), env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    return (done.stdout + done.stderr).decode()


def test_lines_end_at_line_feeds_and_hold_nothing_invisible():
    odd = "one\u2028line\u0085of\x0ctext \u00a0 \u3000here\r\n\ufeffEin\u00adkommen zero\u200bwidth\n\n last\n"
    assert tool("plain", text=odd) == "one line of text here\nEinkommen zero width\n\nlast\n"


def test_plain_text_of_files_in_their_order(tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(gzip.compress("\ufeffÄ b\n".encode()))
    (tmp_path / "b").write_bytes(b"broken \xff byte\n")
    assert tool("plain", tmp_path / "a.gz", tmp_path / "b") == "Ä b\nbroken \ufffd byte\n"


def test_segments_of_an_evaluation_file(tmp_path: Path):
    page = '<refset><DOC>\n<hl>\n<seg id="1"> Q&amp;A &lt;here&gt; </seg>\n</hl>\n<seg id="2">two\nlines</seg></DOC>\n'
    (tmp_path / "test.sgm").write_text(page)
    assert tool("plain", "--segments", tmp_path / "test.sgm") == "Q&A <here>\ntwo lines\n"


def test_romanian_has_commas_below():
    assert tool("plain", "--romanian", text="Şi ţara, ȘI ȚARA\n") == "Și țara, ȘI ȚARA\n"


def test_tokens_as_moses_makes_them_in_the_order_of_the_lines():
    lines = [f"Nr. {i}: „ja“ – sagte Dr. Ott-Lang." for i in range(2500)]
    said = tool("moses", "de", "--workers", 2, text="\n".join(lines) + "\n\n").splitlines()
    assert len(said) == 2501 and said[-1] == ""
    assert said[7] == "Nr. 7 : &quot; ja &quot; - sagte Dr. Ott-Lang ."
    split = tool("moses", "en", "--split-dashes", "--lowercase", text="A well-known U.S. firm.\n")
    assert split == "a well @-@ known u.s. firm .\n"


def clean(tmp_path: Path, source: str, target: str, *flags: object, code: int = 0) -> tuple[str, str, str]:
    for name, text in (("s", source), ("t", target)):
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in ("s", "t", "s.out", "t.out")]
    said = tool("clean_corpus", *files, *flags, code=code)
    return said, files[2].read_text(), files[3].read_text()


def test_pairs_that_teach_nothing_are_left_out_and_counted(tmp_path: Path):
    source = "a b c\n\na b c d e f\na\na b c d\n"
    target = "x y\nx\nx y\nx\nx y z q r\n"
    said, kept_source, kept_target = clean(tmp_path, source, target, "--longest", 4, "--ratio", 1.5)
    assert (kept_source, kept_target) == ("a b c\na\n", "x y\nx\n")
    assert said == "kept 2 of 5 pairs; left out: 1 empty, 2 too long\n"
    assert "1 unlike in length" in clean(tmp_path, "a b c d\n", "x y\n")[0]


@pytest.mark.parametrize(("source", "target"), [("a\nb\n", "x\n"), ("a\n", "x\ny\n")])
def test_sides_that_differ_in_their_lines_are_refused(tmp_path: Path, source: str, target: str):
    assert "differ in their number of lines" in clean(tmp_path, source, target, code=1)[0]


# -- the data a recipe starts from -------------------------------------------------------------------------------------


def check(tmp_path: Path, code: int = 0) -> str:
    files = "a.gz http://there/a.gz\nb http://there/b\n"
    return tool("check_data", tmp_path, tmp_path / "sums", tmp_path / "record", text=files, code=code)


def test_data_that_are_missing_or_not_as_published_or_as_before(tmp_path: Path):
    said = check(tmp_path, code=2)
    assert f"{tmp_path}/a.gz is missing; it is to be had from http://there/a.gz" in said and f"{tmp_path}/b is" in said
    (tmp_path / "a.gz").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "sums").write_text(f"# published\n{hashlib.md5(b'1').hexdigest()}  a.gz\n")
    assert "1 files as published, 0 as recorded before, 1 seen for the first time" in check(tmp_path)
    assert (tmp_path / "record").read_text() == f"{hashlib.sha256(b'2').hexdigest()}  b\n"
    assert "1 files as published, 1 as recorded before, 0 seen" in check(tmp_path)
    (tmp_path / "a.gz").write_bytes(b"3")
    (tmp_path / "b").write_bytes(b"4")
    said = check(tmp_path, code=2)
    assert f"a.gz is not as published: its md5 is {hashlib.md5(b'3').hexdigest()}" in said
    assert f"b is not as it was when this recipe first ran: its sha256 is {hashlib.sha256(b'4').hexdigest()}" in said


@pytest.mark.parametrize("line", ["abc  b", "b", f"{'0' * 63}g  b", f"{'0' * 64}  b  c"])
def test_a_damaged_record_does_not_let_other_data_in(tmp_path: Path, line: str):
    for name in ("a.gz", "b"):
        (tmp_path / name).write_text(name)
    (tmp_path / "record").write_text(f"{line}\n")
    assert f"line 1 of {tmp_path}/record is no checksum and name of a file" in check(tmp_path, code=1)
    assert (tmp_path / "record").read_text() == f"{line}\n"


def test_a_file_may_be_unpacked_already(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert "2 seen for the first time" in check(tmp_path)
    assert {line.split()[1] for line in (tmp_path / "record").read_text().splitlines()} == {"a", "b"}


def test_a_recipe_names_the_files_it_lacks_and_writes_nothing_else(tmp_path: Path):
    done = recipe("iwslt14_de_en", "--data", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 2 and f"{tmp_path}/de-en.tgz is missing" in done.stderr and "https://wit3" in done.stderr
    assert not (tmp_path / "out/steps").exists()
