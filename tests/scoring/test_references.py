"""References that are none are refused, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.references import check_distinct, read_references


def test_references_as_people_write_them(tmp_path: Path):
    lines = [samples.raw(20), samples.raw(20, seed=2)]
    paths = [samples.write(tmp_path / str(i), text) for i, text in enumerate(lines)]
    assert read_references(paths) == lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (["", " "], "is empty"),
        (["S-0\ta", "H-0\t-1\tb"], "is what fairseq-generate printed; were --hyp and --ref swapped"),
        (["a@@ b c", "d e"], r"holds word pieces \(subword_nmt\)"),
        (["\u2581a b"], r"holds word pieces \(sentencepiece\)"),
        (samples.tokenised(samples.raw(9)), "is tokenised .*name the file as it was before tokenisation"),
    ],
)
def test_other_files(tmp_path: Path, lines: list[str], message: str):
    with pytest.raises(UserError, match=message):
        read_references([samples.write(tmp_path / "ref", lines)])


def test_references_of_different_test_sets(tmp_path: Path):
    paths = [samples.write(tmp_path / "a", samples.raw(3)), samples.write(tmp_path / "b", samples.raw(2))]
    with pytest.raises(UserError, match="different numbers of lines .*a: 3, .*b: 2"):
        read_references(paths)


def test_no_file_is_named_twice(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    check_distinct([("--hyp", tmp_path / "a"), ("--hyp", tmp_path / "b")])
    for other in ("a", "../" + tmp_path.name + "/a", "link"):
        with pytest.raises(UserError, match="named twice, by --hyp and by --ref"):
            check_distinct([("--hyp", tmp_path / "a"), ("--ref", tmp_path / other)])
