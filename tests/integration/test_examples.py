"""The toy examples walked through on next to nothing, as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ENVIRONMENT, ROOT


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
def test_halving_walks_through(walked):
    """From two steps to one: three models, of which the student decodes in one step only."""
    runs, _ = walked
    small = "--systems Difformer --steps 2 --updates 2 --teacher-updates 2"
    done = example("progressive", "--runs", runs, *small.split())
    assert done.returncode == 0, done.stderr
    text = (runs / "progressive-1/progressive.txt").read_text()
    record = json.loads((runs / "progressive-1/progressive.json").read_text())
    assert text in done.stdout
    assert record["run"] == str(runs / "demo-1")
    decoded = [(row["how"], row["steps"], row["calls"]) for row in record["rows"]]
    assert decoded == [("demo", 2, 2), ("demo", 1, 1), ("teacher", 2, 2), ("teacher", 1, 1), ("student", 1, 1)]
    assert "--student-steps 1" in (runs / "progressive-1/logs/train-difformer-student-of-1.log").read_text()


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
