"""Checkpoints of the other direction, and checkpoints of which a bit has changed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import binarise
from fairseq import checkpoint_utils
from support import call, different, generate, read, training

import fairseq_diffusion
from fairseq_diffusion.cli.average import load_checkpoint
from fairseq_diffusion.errors import UserError


def test_the_other_direction_is_refused_with_a_joined_dictionary(corpus: Path, tmp_path: Path):
    """Also where the languages of the training were inferred from the data-bin."""
    joined = binarise(corpus, tmp_path / "joined", "--joined-dictionary")
    call("train", *training(joined, tmp_path / "save", "--max-update 1 --disable-validation"))
    path = tmp_path / "save/checkpoint_last.pt"
    assert read(path)["task_state"]["languages"] == ["a", "b"] and read(path)["cfg"]["task"]["source_lang"] is None
    generate(joined, path, "-s a -t b")
    with pytest.raises(UserError, match="translates from a to b, but this command from b to a; pass --source-lang a"):
        generate(joined, path, "-s b -t a")


def test_a_bit_that_has_changed_is_found_or_changes_nothing(checkpoint: Path, tmp_path: Path):
    """By fairseq's commands and by `average`; some bytes of an archive, such as its padding, mean nothing."""
    fairseq_diffusion.load()
    whole, path, rng = checkpoint.read_bytes(), tmp_path / "flipped.pt", random.Random(3)
    original, found = read(checkpoint), 0
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        for load in (lambda: checkpoint_utils.load_checkpoint_to_cpu(str(path)), lambda: load_checkpoint(path)):
            try:
                state = load()
            except UserError as error:
                assert "flipped.pt" in str(error)
                found += 1
            else:
                assert different(state["model"], original["model"]) == []
    assert found > 100
