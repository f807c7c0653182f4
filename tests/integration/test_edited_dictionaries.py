"""A dictionary that is edited after its data-bin was first used: found by every command that reads the data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import binarise
from holding import FORK
from support import call, generate, training

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.data import REMEMBERED, check_files, read
from fairseq_diffusion.tasks.dictionary import TableDictionary

CHANGED = r"the dictionary dict\.b\.txt is not what it was when {}/train\.a-b\.b\.bin was first used \({}\)"


def train(data: Path, folder: Path, flags: str = "") -> None:
    call("train", *training(data, folder, f"--max-update 1 --no-save --disable-validation {flags}"))


@pytest.fixture
def used(data: Path, tmp_path: Path) -> Path:
    """A data-bin whose training set was used."""
    copy = Path(shutil.copytree(data, tmp_path / "used", ignore=shutil.ignore_patterns(REMEMBERED)))
    train(copy, tmp_path)
    assert (copy / REMEMBERED).is_file()
    return copy


def edit(data: Path, change: Callable[[list[str]], Any]) -> None:
    lines = (data / "dict.b.txt").read_text().splitlines(keepends=True)
    change(lines)
    (data / "dict.b.txt").write_text("".join(lines))


@pytest.mark.parametrize(
    "change, difference",
    [
        (lambda lines: lines.reverse(), "other words or another order"),
        (lambda lines: lines.insert(2, "new 1\n"), "other words or another order"),
        (lambda lines: lines.__setitem__(0, "other 9\n"), "other words or another order"),
    ],
)
def test_an_edited_dictionary_is_found_and_a_change_may_be_meant(
    used: Path, tmp_path: Path, change: Any, difference: str
):
    edit(used, change)
    with pytest.raises(UserError, match=CHANGED.format(used, difference)) as refused:
        train(used, tmp_path)
    assert f"if the change was meant, remove {used / REMEMBERED}" in str(refused.value)
    (used / REMEMBERED).unlink()
    train(used, tmp_path)


def test_a_word_less_is_found_where_the_data_lack_it(data: Path, corpus: Path, tmp_path: Path):
    """The last one is in none of the data, so that no number in them is beyond the dictionary."""
    few = binarise(corpus, tmp_path / "few", "--srcdict", data / "dict.a.txt", "--tgtdict", longer(data, tmp_path))
    train(few, tmp_path)
    edit(few, lambda lines: lines.pop())
    with pytest.raises(UserError, match=CHANGED.format(few, r"\d+ entries against \d+")):
        train(few, tmp_path)


def longer(data: Path, folder: Path) -> Path:
    text = (data / "dict.b.txt").read_text()
    (folder / "longer.txt").write_text(text + "unused 1\n")
    return folder / "longer.txt"


def test_generation_and_likelihood_look_too(data: Path, checkpoint: Path, tmp_path: Path):
    """Here the dictionary is the checkpoint's again, and the data were first used with another one."""
    copy = Path(shutil.copytree(data, tmp_path / "copy", ignore=shutil.ignore_patterns(REMEMBERED)))
    edit(copy, lambda lines: lines.reverse())
    train(copy, tmp_path, "--train-subset test")
    shutil.copy(data / "dict.b.txt", copy)
    with pytest.raises(UserError, match=r"test\.a-b\.b\.bin was first used"):
        generate(copy, checkpoint)
    assert main(["likelihood", str(copy), "--path", str(checkpoint), "--cpu"]) == 2


def test_binarising_again_and_other_splits_pass(used: Path, corpus: Path, tmp_path: Path):
    """With the same dictionary, with words behind it, and with another one for all of the data."""
    shutil.copy(used / "dict.b.txt", tmp_path)
    more = ["--srcdict", used / "dict.a.txt", "--tgtdict", tmp_path / "dict.b.txt"]
    only_test = tmp_path / "only"
    only_test.mkdir()
    for language in "ab":
        shutil.copy(corpus / f"test.{language}", only_test)
    binarise(only_test, used, *more)
    train(used, tmp_path)
    train(used, tmp_path, "--train-subset test")
    edit(used, lambda lines: lines.append("later 1\n"))
    train(used, tmp_path)
    train(used, tmp_path, "--train-subset test")
    text = tmp_path / "text"
    text.mkdir()
    for file in corpus.iterdir():
        (text / file.name).write_text(file.read_text().replace("W3", "X3"))
    for language in "ab":
        (used / f"dict.{language}.txt").unlink()  # fairseq-preprocess takes what is there for a mistake
    binarise(text, used)
    train(used, tmp_path)
    assert "X3 " in (used / "dict.b.txt").read_text()


def test_where_nothing_can_be_remembered_nothing_fails(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from fairseq_diffusion.tasks import data as module

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    copy = Path(shutil.copytree(data, tmp_path / "copy", ignore=shutil.ignore_patterns(REMEMBERED)))
    (copy / REMEMBERED).write_text("no JSON")
    monkeypatch.setattr(module, "write_text", refuse)
    train(copy, tmp_path)
    edit(copy, lambda lines: lines.reverse())
    train(copy, tmp_path)
    assert (copy / REMEMBERED).read_text() == "no JSON"


def test_commands_at_once_remember_alike(data: Path, tmp_path: Path):
    copy = Path(shutil.copytree(data, tmp_path / "copy", ignore=shutil.ignore_patterns(REMEMBERED)))
    dictionaries = {language: TableDictionary.load(str(copy / f"dict.{language}.txt")) for language in "ab"}
    together = FORK.Barrier(6)

    def use() -> None:
        together.wait()
        for split in ("train", "valid", "test"):
            check_files(copy, split, dictionaries)

    using = [FORK.Process(target=use) for _ in range(6)]
    for each in using:
        each.start()
    for each in using:
        each.join()
    assert [each.exitcode for each in using] == [0] * 6
    for split in ("train", "valid", "test"):  # what two have written at the same moment
        check_files(copy, split, dictionaries)
    assert len(json.loads((copy / REMEMBERED).read_text())) == 6
    assert not list(copy.glob(".*.tmp"))


@pytest.mark.parametrize("text", ["", "[1]", '{"train.a-b.b": 5}', '{"train.a-b.b": {"size": "many"}}', "[" * 100_000])
def test_a_damaged_memory_is_none(used: Path, tmp_path: Path, text: str):
    """It is written anew."""
    (used / REMEMBERED).write_text(text)
    train(used, tmp_path)
    assert read(used / REMEMBERED)["train.a-b.b"]["size"] > 0
