"""Sentences about data that will not do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.tasks.checks import (
    check_data,
    check_dictionary,
    check_split,
    check_whole,
    fingerprint,
    languages_of,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dict.de.txt", "dict.en.txt", "train.de-en.de.idx", "valid1.de-en.en.idx", "dict.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_languages_are_those_with_a_dictionary(folder: Path):
    assert languages_of(folder) == {"de", "en"}


def test_good_data_passes(folder: Path):
    check_data(SimpleNamespace(data=f"{folder}:elsewhere", source_lang="de", target_lang=None))
    check_split(str(folder), "train", "de", "en")
    check_split(str(folder), "train", "en", "de")  # the other direction of the same files


@pytest.mark.parametrize("split", ["test", "valid"])
def test_missing_split(folder: Path, split: str):
    with pytest.raises(UserError, match=f"no split '{split}' .* it holds train, valid1"):
        check_split(str(folder), split, "de", "en")


def test_missing_language(folder: Path):
    with pytest.raises(UserError, match="no dictionary for fr; it holds de, en"):
        check_data(SimpleNamespace(data=str(folder), source_lang="fr", target_lang="en"))


def dictionary(*words: str) -> dict:
    class Words:
        symbols = list(words)

        def __len__(self) -> int:
            return len(words)

    return fingerprint(Words())


def test_dictionaries():
    check_dictionary("source", dictionary("a", "b"), dictionary("a", "b"))
    with pytest.raises(UserError, match="source dictionary.*2 entries against 3"):
        check_dictionary("source", dictionary("a", "b"), dictionary("a", "b", "c"))
    with pytest.raises(UserError, match="another order"):
        check_dictionary("target", dictionary("a", "b"), dictionary("b", "a"))


class FullyShardedDataParallel(SimpleNamespace):
    """A stand-in for fairscale's."""


def test_our_models_are_not_cut_up():
    ours, autoregressive = TranslatorModel(None, nn.Identity(), 0, 1), nn.Identity()
    with pytest.raises(UserError, match="fully_sharded leaves no rank a whole embedding table.*legacy_ddp"):
        check_whole(FullyShardedDataParallel(module=ours))
    check_whole(FullyShardedDataParallel(module=autoregressive))
    check_whole(ours)
