"""One dictionary and one table for both sides, through the programs that a user calls."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from conftest import binarise
from support import call, generate, hypotheses, read, training

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import check_joined

TABLE = "translator.state.weight"
SHARED = "--share-embeddings --max-update 2 --no-epoch-checkpoints --disable-validation"
AVERAGED = "--store-ema --ema-decay 0.9"


@pytest.fixture(scope="module")
def joined(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, binarised with one dictionary."""
    return binarise(corpus, tmp_path_factory.mktemp("joined"), "--joined-dictionary")


@pytest.fixture(scope="module")
def shared(joined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training with shared embeddings and an average."""
    folder = tmp_path_factory.mktemp("shared")
    call("train", *training(joined, folder, f"{SHARED} {AVERAGED}", arch="difformer_toy"))
    return folder / "checkpoint_last.pt"


def test_the_table_is_kept_and_optimised_once(joined: Path, shared: Path):
    state, words = read(shared), len((joined / "dict.a.txt").read_text().splitlines()) + 4
    words += -words % 8  # fairseq pads dictionaries
    tables = [key for key, value in state["model"].items() if value.shape == (words, 4)]
    assert tables == [TABLE]
    averages = state["last_optimizer_state"]["state"].values()
    assert sum(entry["exp_avg"].shape == (words, 4) for entry in averages) == 1


def test_it_decodes_as_saved(joined: Path, shared: Path):
    assert len(hypotheses(generate(joined, shared, "--early-stop 0"))) == 11


def test_training_goes_on_and_the_average_moves_once(joined: Path, shared: Path, tmp_path: Path):
    (tmp_path / "checkpoint_last.pt").write_bytes(shared.read_bytes())
    flags = f"{SHARED} {AVERAGED}".replace("--max-update 2", "--max-update 3")
    call("train", *training(joined, tmp_path, flags, arch="difformer_toy"))
    before, after = read(shared), read(tmp_path / "checkpoint_last.pt")
    assert after["optimizer_history"][-1]["num_updates"] == 3
    now, averages = after["model"][TABLE], [state["extra_state"]["ema"][TABLE] for state in (before, after)]
    assert not torch.equal(before["model"][TABLE], now)
    torch.testing.assert_close(averages[1], 0.9 * averages[0] + 0.1 * now)


def test_two_dictionaries_are_refused(data: Path, tmp_path: Path):
    words = r"--share-embeddings .* source's 24 and the target's 24 .*fairseq-preprocess --joined-dictionary"
    with pytest.raises(UserError, match=words):
        call("train", *training(data, tmp_path, SHARED, arch="difformer_toy"))


def test_the_same_words_in_another_order_are_refused():
    class Words:
        def __init__(self, *symbols: str):
            self.symbols = list(symbols)

        def __len__(self) -> int:
            return len(self.symbols)

    check_joined(Words("a", "b"), copy.deepcopy(Words("a", "b")))
    with pytest.raises(UserError, match="source's 2 and the target's 2 entries are not the same"):
        check_joined(Words("a", "b"), Words("b", "a"))
    with pytest.raises(UserError, match="source's 2 and the target's 3 entries"):
        check_joined(Words("a", "b"), Words("a", "b", "c"))
