"""The toy examples walked through on next to nothing, as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kills import killed_when
from support import ENVIRONMENT, ROOT


def example_command(name: str, *arguments: object) -> list[object]:
    return [sys.executable, ROOT / f"examples/toy/{name}.py", *arguments]


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = example_command(name, *arguments)
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


SHORT = "--size 400 --test-size 10 --updates 4 --ar-updates 4 --steps 3".split()
SMALL = ["--full", "--difformer-updates", "4", *SHORT]


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a demo on next to nothing, and what it printed; it was killed when it had a first checkpoint."""
    folder = tmp_path_factory.mktemp("walked") / "a b"
    first = folder / "checkpoints/difformer/checkpoint_last.pt"
    killed_when(first, example_command("demo", "--out", folder, *SMALL), ENVIRONMENT)
    done = example("demo", "--out", folder, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_the_demo_walks_through(walked):
    """Table and picture; a second call has nothing to do, another number of steps is decoded beside the first."""
    folder, printed = walked
    assert "corpus: complete" in printed and "was interrupted, continues" in printed
    table = (folder / "table.txt").read_text()
    assert table in printed
    rows = [line.split("  ")[0] for line in table.splitlines()[2:13]]
    assert rows == ["Transformer", *["DINOISER"] * 6, *["DINOISER, no clipping"] * 2, *["Difformer"] * 2]
    assert "Test set: 10 sentences" in table and "sacreBLEU nrefs:var" in table
    assert (folder / "picture.png").stat().st_size > 10_000
    again = example("demo", "--out", folder, *SMALL)
    assert table in again.stdout and "begins" not in again.stdout and "made again" not in again.stdout
    failed = example("demo", "--out", folder, *SMALL, "--size", "0")
    assert failed.returncode == 1
    assert "demo: corpus failed" in failed.stderr and "corpus.log" in failed.stderr
    assert (folder / "replaced/corpus-1/corpus").is_dir()
    assert example("demo", "--out", folder, *SMALL).returncode == 0


@pytest.mark.slow
def test_the_short_demo_walks_through(tmp_path):
    """Three systems; what only the full demo reads is refused."""
    done = example("demo", "--out", tmp_path, *SHORT)
    assert done.returncode == 0, done.stderr
    text, record = read_table(tmp_path)
    assert text in done.stdout and "Difformer" not in text and (tmp_path / "picture.png").exists()
    assert [(row["system"], row["calls"]) for row in record["rows"]][1:] == [("NAT", 1), *[("DINOISER", 3)] * 3]
    assert {name: training["updates"] for name, training in record["recipe"]["systems"].items()} == {
        "DINOISER": 4,
        "NAT": 4,
        "Transformer": 4,
    }
    refused = example("demo", "--out", tmp_path, *SHORT, "--difformer-updates", "4")
    assert refused.returncode == 2 and "pass --full" in refused.stderr


@pytest.mark.slow
def test_the_comparison_walks_through(walked, tmp_path):
    """One of the tables."""
    folder, _ = walked
    done = example("compare", "--run", folder, "--out", tmp_path, "--steps", "4", "--tables", "early_exit")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "compare-early_exit.txt").read_text()
    record = json.loads((tmp_path / "compare-early_exit.json").read_text())
    assert text in done.stdout
    assert record["run"] == str(folder)
    calls = {(row["system"], row["how"]): row["calls"] for row in record["rows"]}
    assert calls["DINOISER", "all steps"] == 4 and calls["Difformer", "all steps"] == 3
    assert calls["DINOISER", "--prune-after 1"] == (8 + 4 * 3) / 8
    assert calls["Difformer", "--prune-after 1,2"] == (8 + 4 + 2) / 8


@pytest.mark.slow
def test_halving_walks_through(walked, tmp_path):
    """From two steps to one: three models, of which the student decodes in one step only."""
    folder, _ = walked
    small = "--systems Difformer --steps 2 --updates 2 --teacher-updates 2"
    done = example("progressive", "--run", folder, "--out", tmp_path, *small.split())
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "progressive.txt").read_text()
    record = json.loads((tmp_path / "progressive.json").read_text())
    assert text in done.stdout
    assert record["run"] == str(folder)
    decoded = [(row["how"], row["steps"], row["calls"]) for row in record["rows"]]
    assert decoded == [("demo", 2, 2), ("demo", 1, 1), ("teacher", 2, 2), ("teacher", 1, 1), ("student", 1, 1)]
    assert "--student-steps 1" in (tmp_path / "logs/train-difformer-student-of-1.log").read_text()


@pytest.mark.slow
def test_one_pass_walks_through(tmp_path):
    """Two systems trained and decoded; then a table of one of these, which is not made again."""
    small = "--size 400 --test-size 10 --updates 4 --ar-updates 4".split()
    done = example("one_pass", "--out", tmp_path, *small, "--systems", "transformer", "diff-glat-t-2")
    assert done.returncode == 0, done.stderr
    text, record = read_table(tmp_path)
    assert text in done.stdout
    assert list(record["recipe"]["systems"]) == ["Diff-Glat, T = 2", "Transformer"]
    assert [(row["system"], row["how"]) for row in record["rows"]] == [
        ("Transformer", "beam 5"),
        ("Diff-Glat, T = 2", "1 pass"),
    ]
    calls, *passes = (row["calls"] for row in record["rows"])
    assert calls > 1 and passes == [1]
    assert "Test set: 10 sentences" in text and "a token" in text and "exit at" not in text
    again = example("one_pass", "--out", tmp_path, *small, "--systems", "diff-glat-t-2")
    assert again.returncode == 0 and "begins" not in again.stdout, again.stderr
    assert read_table(tmp_path)[1]["rows"] == record["rows"][1:]
    assert read_table(tmp_path / "replaced/table-1")[1]["rows"] == record["rows"]


def read_table(folder: Path) -> tuple[str, dict[str, Any]]:
    return (folder / "table.txt").read_text(), json.loads((folder / "table.json").read_text())
