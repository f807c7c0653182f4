"""A task learned to a threshold, and the demo walked through, with the programs that a user calls."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import binarise
from support import ENVIRONMENT, ROOT, decoding, hypotheses, lines, process

NETWORK = "--hidden 64 --inner 128 --heads 4 --encoder-layers 2 --decoder-layers 2 --dropout 0"
SCHEDULE = "--lr 3e-3 --lr-scheduler polynomial_decay"
LEARNERS = {  # flags of the smallest system that is safe to learn it, updates, and flags of its decoding
    "dinoiser_toy": ("--latent-dim 16", 600, "--iter-decode-max-iter 20"),
    "difformer_toy": ("--latent-dim 64", 600, "--iter-decode-max-iter 20"),
    "diffglat_toy": ("--blocks 2", 300, ""),
    "da_transformer_toy": ("--upsample 3", 300, ""),
}


def write_reversals(folder: Path) -> None:
    """Letters, and the same in capitals from the last to the first."""
    rng = random.Random(1)
    for split, size in (("train", 8000), ("valid", 50), ("test", 100)):
        rows = [[rng.choice("abcdefghij") for _ in range(rng.randint(3, 8))] for _ in range(size)]
        (folder / f"{split}.a").write_text("".join(" ".join(row) + "\n" for row in rows))
        (folder / f"{split}.b").write_text("".join(" ".join(row[::-1]).upper() + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize("arch", LEARNERS)
def test_a_system_learns_to_reverse(tmp_path, arch):
    own, updates, steps = LEARNERS[arch]
    write_reversals(tmp_path)
    data = binarise(tmp_path, tmp_path / "bin")
    flags = ["--task", "diffusion_translation", "--criterion", "diffusion_loss", "--arch", arch, *own.split()]
    schedule = f"{SCHEDULE} --warmup-updates {updates // 10} --max-update {updates} --total-num-update {updates}"
    optimiser = "--optimizer adam --batch-size 64 --cpu --no-epoch-checkpoints".split()
    where = [data, "--user-dir", ROOT / "fairseq_diffusion", "--save-dir", tmp_path / "checkpoints"]
    done = process("train", *where, *flags, *NETWORK.split(), *schedule.split(), *optimiser)
    assert done.returncode == 0, done.stderr
    last = tmp_path / "checkpoints/checkpoint_last.pt"
    printed = process("generate", *decoding(data, last, "--batch-size 50", steps)).stdout
    said, meant = hypotheses(printed), lines(printed, "T")
    right = sum(said[i][0][0] == meant[i][0][0] for i in meant)
    assert len(meant) == 100
    assert right >= 95


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / f"examples/toy/{name}.py", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Path, str]:
    """The runs' folder of a demo on next to nothing, and what it printed."""
    runs = tmp_path_factory.mktemp("walked") / "a b"
    small = "--size 400 --test-size 10 --updates 4 --difformer-updates 4 --ar-updates 4 --steps 3"
    done = example("demo", "--runs", runs, *small.split())
    assert done.returncode == 0, done.stderr
    return runs, done.stdout


@pytest.mark.slow
def test_the_demo_walks_through(walked):
    """Every stage of the demo: table, picture, and a second run beside the first."""
    runs, printed = walked
    table = (runs / "demo-1/table.txt").read_text()
    assert table in printed
    rows = [line.split("  ")[0] for line in table.splitlines()[2:13]]
    assert rows == ["Transformer", *["DINOISER"] * 6, *["DINOISER, no clipping"] * 2, *["Difformer"] * 2]
    assert "Test set: 10 sentences" in table and "sacreBLEU nrefs:var" in table
    assert (runs / "demo-1/picture.png").stat().st_size > 10_000
    failed = example("demo", "--runs", runs, "--size", "0")
    assert failed.returncode == 1
    assert "'corpus' failed" in failed.stderr and "corpus.log" in failed.stderr
    assert (runs / "demo-2").exists()


@pytest.mark.slow
def test_the_comparison_walks_through(walked):
    """One of the tables, of the newest complete run; a second comparison would stand beside the first."""
    runs, _ = walked
    done = example("compare", "--runs", runs, "--steps", "4", "--tables", "leaving")
    assert done.returncode == 0, done.stderr
    text = (runs / "compare-1/compare-leaving.txt").read_text()
    record = json.loads((runs / "compare-1/compare-leaving.json").read_text())
    assert text in done.stdout
    assert record["run"] == str(runs / "demo-1")
    assert len(record["rows"]) == 12
    assert sum(line.startswith(("DINOISER ", "Difformer ")) for line in text.splitlines()) == 12
    calls = {(row["system"], row["how"]): row["calls"] for row in record["rows"]}
    assert calls["DINOISER", "all stay"] == 4 and calls["Difformer", "all stay"] == 3
    assert calls["DINOISER", "--prune-after 1"] == (8 + 4 * 3) / 8
    assert calls["Difformer", "--prune-after 1,2"] == (8 + 4 + 2) / 8


@pytest.mark.slow
def test_one_pass_walks_through(tmp_path):
    """Two systems trained and decoded; then one of these again, of the same run."""
    systems = "transformer diff-glat-t-2".split()
    small = "--size 400 --test-size 10 --updates 4 --ar-updates 4".split()
    done = example("one_pass", "--runs", tmp_path, *small, "--systems", *systems)
    assert done.returncode == 0, done.stderr
    text, record = read_table(tmp_path / "one-pass-1")
    assert text in done.stdout
    assert list(record["recipe"]["systems"]) == ["Diff-Glat, T = 2", "Transformer"]
    assert [(row["system"], row["how"]) for row in record["rows"]] == [
        ("Transformer", "beam 5"),
        ("Diff-Glat, T = 2", "1 pass"),
    ]
    calls, *passes = (row["calls"] for row in record["rows"])
    assert calls > 1 and passes == [1]
    assert "Test set: 10 sentences" in text and "a token" in text and "exit at" not in text
    again = example("one_pass", "--run", tmp_path / "one-pass-1", "--systems", "diff-glat-t-2")
    assert again.returncode == 0, again.stderr
    (only,) = read_table(tmp_path / "one-pass-1")[1]["rows"]
    assert {**only, "speed": 0} == {**record["rows"][-1], "speed": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["one-pass-1"]


def read_table(folder: Path) -> tuple[str, dict[str, Any]]:
    return (folder / "table.txt").read_text(), json.loads((folder / "table.json").read_text())
