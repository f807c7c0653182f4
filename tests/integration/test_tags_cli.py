"""A tag of the data is never part of a translation, whatever the model has learnt."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import binarise
from support import TINY, TINY_BLOCKS, TINY_WORDS, call, generate, hypotheses, training

TAG = "<2b>"
STEPS = "--iter-decode-max-iter 4"
ARCHS = {  # of each state and alignment: a tiny size, and flags of its decoding
    "dinoiser_toy": (TINY, STEPS),
    "mdlm_toy": (TINY_WORDS, STEPS),
    "d3pm_toy_uniform": (TINY_WORDS, STEPS),
    "sundae_toy": (TINY_WORDS, STEPS),
    "nat_toy": (TINY_BLOCKS, ""),
    "glat_toy_ctc": ([*TINY_BLOCKS, "--upsample", "3"], ""),
    "da_transformer_toy": ([*TINY_BLOCKS, "--upsample", "3"], ""),
}
BRIEF = "--max-update 80 --lr 1e-2 --no-epoch-checkpoints --disable-validation"


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tag in front of each source; nobody would have it in the targets, most of which it is here."""
    folder, rng = tmp_path_factory.mktemp("tagged"), random.Random(1)
    for split, size in (("train", 200), ("valid", 5), ("test", 10)):
        rows = [[rng.choice("uvw") for _ in range(rng.randint(3, 6))] for _ in range(size)]
        (folder / f"{split}.a").write_text("".join(f"{TAG} {' '.join(row)}\n" for row in rows))
        (folder / f"{split}.b").write_text("".join(f"{' '.join([TAG] * len(row))} {row[0]}\n" for row in rows))
    return binarise(folder, folder / "bin", "--joined-dictionary")


def written(data: Path, folder: Path, arch: str, flags: str) -> list[str]:
    """All words of the translations by a model that is trained with these flags."""
    size, how = ARCHS[arch]
    call("train", *training(data, folder, f"{BRIEF} {flags}", arch, size=size))
    found = hypotheses(generate(data, folder / "checkpoint_last.pt", "", how))
    assert len(found) == 10
    return [word for (text, _), *_ in found.values() for word in text.split()]


@pytest.mark.parametrize("arch", ARCHS)
def test_a_tag_is_never_written(tagged: Path, tmp_path: Path, arch: str):
    """By a model that does not know it as one, it is."""
    without = written(tagged, tmp_path / "without", arch, "")
    assert without.count(TAG) > len(without) / 2
    words = written(tagged, tmp_path / "with", arch, f"--tags {TAG}")
    fewest = 10 if arch == "glat_toy_ctc" else len(without) / 2  # CTC merges repeats, and tags are not just taken out
    assert len(words) >= fewest and TAG not in words
