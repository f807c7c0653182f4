"""The real recipes' text steps, run as --dry-run prints them on small archives laid out as the real ones are."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from commands import ROOT
from dry_runs import dry_run, environment

SPLIT = ROOT / "examples/tatoeba/split.py"
WORDS = "Haus Baum well-known Straße nicht ein schöner Tag heute und morgen geht er weiter".split()


def lines(count: int, shift: int = 0) -> str:
    return "".join(
        " ".join(WORDS[(i + j + shift) % len(WORDS)] for j in range(4 + i % 3)) + " .\n" for i in range(count)
    )


def segments(count: int, shift: int = 0) -> str:
    said = enumerate(lines(count, shift).splitlines(), start=1)
    return "<doc>\n" + "".join(f'<seg id="{i}"> {text} </seg>\n' for i, text in said) + "</doc>\n"


def talks(count: int) -> str:
    return "<url>http://x</url>\n<keywords>a, b</keywords>\n<talkid>1</talkid>\n<title>A title</title>\n" + lines(count)


def tgz(path: Path, **members: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, BytesIO(text.encode()))


def sides(prefix: str, languages: str, text: str, end: str = "") -> dict[str, str]:
    return {f"{prefix}{language}{end}": text for language in languages.split()}


def evaluation(prefix: str, source: str, target: str) -> dict[str, str]:
    return {f"{prefix}-src.{source}.sgm": segments(6), f"{prefix}-ref.{target}.sgm": segments(6)}


def multi30k(data: Path) -> None:
    for name in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (data / f"{name}.{language}.gz").write_bytes(gzip.compress(lines(30).encode()))


def tatoeba(data: Path) -> None:
    """As split.py makes it, from lines in which some sentences have two translations."""
    said = lines(4000).splitlines()
    published = data / "deu.txt"
    published.write_text("".join(f"{i} {said[i // 2]}\t{said[i // 2]} {i // 2}\tCC-BY\n" for i in range(8000)))
    done = subprocess.run([sys.executable, SPLIT, published, data], capture_output=True)
    assert done.returncode == 0, done.stderr


def iwslt14_de_en(data: Path) -> None:
    parts = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
    members = sides("de-en/train.tags.de-en.", "de en", talks(45))
    for part in parts:
        members.update(sides(f"de-en/IWSLT14.{part}.de-en.", "de en", segments(2), ".xml"))
    tgz(data / "de-en.tgz", **members)


def wmt14_en_de(data: Path) -> None:
    tgz(data / "training-parallel-europarl-v7.tgz", **sides("training/europarl-v7.de-en.", "de en", lines(20)))
    tgz(data / "training-parallel-commoncrawl.tgz", **sides("commoncrawl.de-en.", "de en", lines(20, 1)))
    tgz(data / "training-parallel-nc-v9.tgz", **sides("training/news-commentary-v9.de-en.", "de en", lines(20, 2)))
    tgz(data / "dev.tgz", **evaluation("dev/newstest2013", "en", "de"))
    tgz(data / "test-full.tgz", **evaluation("test-full/newstest2014-deen", "en", "de"))


def wmt16_en_ro(data: Path) -> None:
    europarl = sides("training-parallel-ep-v8/europarl-v8.ro-en.", "en ro", lines(20))
    tgz(data / "training-parallel-ep-v8.tgz", **europarl)
    tgz(data / "dev.tgz", **evaluation("dev/newsdev2016-enro", "en", "ro"))
    tgz(data / "test.tgz", **evaluation("test/newstest2016-enro", "en", "ro"))
    with zipfile.ZipFile(data / "en-ro.txt.zip", "w") as archive:
        for name, text in sides("SETIMES.en-ro.", "en ro", lines(20, 3)).items():
            archive.writestr(name, text)


DATA = {multi30k: (30, 30), tatoeba: (1364, 2000), iwslt14_de_en: (45, 10), wmt14_en_de: (60, 6), wmt16_en_ro: (40, 6)}


def test_tatoeba_is_split_without_leaks(tmp_path: Path):
    tatoeba(tmp_path)
    sides = {path.name: gzip.decompress(path.read_bytes()).decode().splitlines() for path in tmp_path.glob("*.gz")}
    for language in ("de", "en"):
        train, valid, test = (sides[f"{name}.{language}.gz"] for name in ("train", "valid", "test"))
        assert (len(train), len(valid), len(test)) == (DATA[tatoeba][0], 2000, 2000)
        assert not set(train) & {*valid, *test} and not set(valid) & set(test)
    assert len(set(sides["train.de.gz"])) < len(sides["train.de.gz"])  # both translations of a sentence
    for german, english in zip(sides["test.de.gz"], sides["test.en.gz"]):
        assert german.rsplit(" ", 1)[0] == english.split(" ", 1)[1]
    again = subprocess.run([sys.executable, SPLIT, tmp_path / "deu.txt", tmp_path], capture_output=True, text=True)
    assert again.returncode == 1 and "is there already" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("archives", DATA)
def test_the_text_of_a_recipe(archives, tmp_path: Path):
    data, out, name = tmp_path / "the user's data", tmp_path / "out", archives.__name__
    data.mkdir()
    archives(data)
    head, steps = dry_run(name, "--data", data, "--out", out)
    text = steps[: [step.name for step in steps].index("binarise")]
    few = [step.command.replace("-s 10000", "-s 20").replace("-s 40000", "-s 20") for step in text]
    script = "\n".join([head, *few])
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all((out / path).stat().st_size for step in text for path in step.outputs)
    described = json.loads((out / "text/preprocessing.json").read_text())
    counts = {path.name: len(path.read_text().splitlines()) for path in (out / "text").glob("*.*.*")}
    train, test = DATA[archives]
    for side in (described["source"], described["target"]):
        assert counts[f"test.plain.{side}"] == counts[f"test.bpe.{side}"] == test
        kept = counts[f"train.bpe.{side}"] + (counts[f"valid.bpe.{side}"] if name == "iwslt14_de_en" else 0)
        assert kept == train + (name == "iwslt14_de_en")  # a talk's title is a sentence, as fairseq has it
        assert "@@" in (out / f"text/test.bpe.{side}").read_text()
        assert ("@-@" in (out / f"text/test.tok.{side}").read_text()) == name.startswith("wmt")
        assert (out / f"text/test.tok.{side}").read_text().islower() == described["lowercase"]
