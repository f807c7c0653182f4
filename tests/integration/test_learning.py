"""A task learned to a threshold, and the demo walked through, with the programs that a user calls."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import binarise
from support import ENVIRONMENT, ROOT, decoding, hypotheses, lines, process

NETWORK = "--hidden 64 --inner 128 --heads 4 --encoder-layers 2 --decoder-layers 2 --latent-dim 16 --dropout 0"
SCHEDULE = "--lr 3e-3 --lr-scheduler polynomial_decay --warmup-updates 60 --max-update 500 --total-num-update 500"


def write_reversals(folder: Path) -> None:
    """Letters, and the same in capitals from the last to the first."""
    rng = random.Random(1)
    for split, size in (("train", 8000), ("valid", 50), ("test", 100)):
        rows = [[rng.choice("abcdefghij") for _ in range(rng.randint(3, 8))] for _ in range(size)]
        (folder / f"{split}.a").write_text("".join(" ".join(row) + "\n" for row in rows))
        (folder / f"{split}.b").write_text("".join(" ".join(row[::-1]).upper() + "\n" for row in rows))


@pytest.mark.slow
def test_dinoiser_learns_to_reverse(tmp_path):
    write_reversals(tmp_path)
    data = binarise(tmp_path, tmp_path / "bin")
    flags = ["--task", "diffusion_translation", "--criterion", "diffusion_loss", "--arch", "dinoiser_toy"]
    optimiser = "--optimizer adam --batch-size 64 --cpu --no-epoch-checkpoints".split()
    where = [data, "--user-dir", ROOT / "fairseq_diffusion", "--save-dir", tmp_path / "checkpoints"]
    done = process("train", *where, *flags, *NETWORK.split(), *SCHEDULE.split(), *optimiser)
    assert done.returncode == 0, done.stderr
    printed = process(
        "generate", *decoding(data, tmp_path / "checkpoints/checkpoint_last.pt", "--batch-size 50")
    ).stdout
    said, meant = hypotheses(printed), lines(printed, "T")
    right = sum(said[i][0][0] == meant[i][0][0] for i in meant)
    assert len(meant) == 100
    assert right >= 95


@pytest.mark.slow
def test_the_demo_walks_through(tmp_path):
    """Every stage of the demo, on next to nothing: table, picture, and a second run beside the first."""
    command = [sys.executable, ROOT / "examples/toy/demo.py", "--runs", tmp_path / "a b"]
    small = "--size 400 --test-size 10 --updates 4 --ar-updates 4 --steps 3".split()
    done = subprocess.run([*command, *small], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "a b/demo-1/table.txt").read_text()
    assert table in done.stdout
    assert table.count("DINOISER") == 7 and "Transformer" in table and "sacreBLEU nrefs:var" in table
    assert (tmp_path / "a b/demo-1/picture.png").stat().st_size > 10_000
    failed = subprocess.run([*command, "--size", "0"], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "'corpus' failed" in failed.stderr and "corpus.log" in failed.stderr
    assert (tmp_path / "a b/demo-2").exists()
