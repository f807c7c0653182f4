"""Data-bins as they are read, written, copied and put in place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import binarise, write_pair
from support import call

from fairseq_diffusion.distillation.data import Writer, open_data
from fairseq_diffusion.distillation.gather import by_number
from fairseq_diffusion.distillation.output import atomic_folder
from fairseq_diffusion.distillation.plan import differences
from fairseq_diffusion.errors import UserError

NO_WISH = (None, None)


def rewritten(data: Path, folder: Path) -> Path:
    """The training set of a data-bin, read and written by us."""
    folder.mkdir()
    raw = open_data(data, NO_WISH)
    raw.copy_all_but_train(folder)
    with Writer(replace(raw, folder=folder)) as writer:
        for pair in zip(*raw.sides("train")):
            writer.write(pair)
    return folder


@pytest.mark.parametrize("flags", ["", "--joined-dictionary", "--nwordssrc 9 --nwordstgt 9"])
def test_what_we_write_is_what_fairseq_writes_from_the_same_text(corpus: Path, tmp_path: Path, flags: str):
    """Unknown words among it: with nine words, most of the corpus is."""
    data = binarise(corpus, tmp_path / "bin", *flags.split())
    ours = rewritten(data, tmp_path / "ours")
    theirs, dictionaries = tmp_path / "theirs", ["--srcdict", ours / "dict.a.txt", "--tgtdict", ours / "dict.b.txt"]
    prefix = ["--trainpref", ours / "text" / "train", "--destdir", theirs]
    call("preprocess", "-s", "a", "-t", "b", *prefix, *dictionaries)
    same = ["dict.a.txt", "dict.b.txt", *(f"train.a-b.{language}.{end}" for language in "ab" for end in ("bin", "idx"))]
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in same)
    assert all((ours / name).read_bytes() == (data / name).read_bytes() for name in same)


def test_all_splits_but_train_are_copied(data: Path, tmp_path: Path):
    bin_ = Path(shutil.copytree(data, tmp_path / "bin"))
    for side in "ab":
        for end in ("bin", "idx"):
            shutil.copy(bin_ / f"test.a-b.{side}.{end}", bin_ / f"test1.a-b.{side}.{end}")
    (bin_ / "notes.txt").write_text("mine")
    (new := tmp_path / "new").mkdir()
    open_data(bin_, NO_WISH).copy_all_but_train(new)
    assert {file.name.split(".")[0] for file in new.iterdir()} == {"dict", "valid", "test", "test1"}
    assert len(list(new.iterdir())) == 2 + 3 * 4


def test_the_direction_is_the_teachers_and_else_that_of_the_names(data: Path):
    assert open_data(data, ("b", "a")).languages == ("b", "a")
    assert open_data(data, ("de", "en")).languages == open_data(data, NO_WISH).languages == ("a", "b")
    there, back = (open_data(data, wish).sides("train") for wish in (("a", "b"), ("b", "a")))
    assert there[0][0].tolist() == back[1][0].tolist()


def remove_train(bin_: Path) -> None:
    for file in bin_.glob("train.*"):
        file.unlink()


def remove_target(bin_: Path) -> None:
    for file in bin_.glob("train.a-b.b.*"):
        file.unlink()


def add_part(bin_: Path) -> None:
    shutil.copy(bin_ / "train.a-b.a.idx", bin_ / "train1.a-b.a.idx")


def lose_a_sentence(bin_: Path) -> None:
    (text := bin_ / "text").mkdir()
    write_pair(text, "train", [["w1"]])
    other = binarise(text, text / "bin", "--srcdict", bin_ / "dict.a.txt", "--tgtdict", bin_ / "dict.b.txt")
    for file in other.glob("train.a-b.b.*"):
        shutil.copy(file, bin_)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (remove_train, "no split 'train'"),
        (remove_target, "40 a and 0 b sentences in train"),
        (lose_a_sentence, "40 a and 1 b sentences in train"),
        (add_part, "in parts"),
        (lambda bin_: shutil.rmtree(bin_), "does not exist"),
    ],
)
def test_a_data_bin_that_cannot_be_distilled(data: Path, tmp_path: Path, harm: Any, sentence: str):
    bin_ = Path(shutil.copytree(data, tmp_path / "bin"))
    harm(bin_)
    with pytest.raises(UserError, match=sentence):
        open_data(bin_, NO_WISH).sides("train")


def test_translations_by_number_with_gaps_but_never_twice():
    assert list(by_number([(1, "x"), (3, "y")], 5)) == [(0, None), (1, "x"), (2, None), (3, "y"), (4, None)]
    for found in ([(1, "x"), (1, "y")], [(5, "x")]):
        with pytest.raises(UserError, match="sentence [15] has a second translation, or is not one of the 5"):
            list(by_number(found, 5))


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path: Path):
    (old := tmp_path / "new").mkdir()
    (old / "precious").touch()
    (killed := tmp_path / ".new.partial").mkdir()
    (killed / "half").touch()
    with pytest.raises(RuntimeError), atomic_folder(old):
        raise RuntimeError
    assert [file.name for file in tmp_path.rglob("*")] == ["new", "precious"]
    with atomic_folder(old) as folder:
        (folder / "whole").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["new", "whole"]


def test_plans_differ_in_words():
    plan = {"languages": ["a", "b"], "data": {"dict.a.txt": "1"}, "teacher": ["1"], "flags": [], "shards": 1}
    assert differences(plan, plan) == []
    other = {"languages": ["b", "a"], "data": {"dict.a.txt": "2"}, "teacher": ["2"], "flags": ["--beam"], "shards": 2}
    assert differences(plan, other) == [
        *("languages then a b, now b a", "flags then none, now --beam", "shards then 1, now 2"),
        *("--path then held other weights", "the data-bin then had another dict.a.txt"),
    ]
