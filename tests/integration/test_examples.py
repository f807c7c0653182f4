"""The toy examples walked through on next to nothing, as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, ROOT
from kills import killed_when


def example_command(name: str, *arguments: object) -> list[object]:
    return [sys.executable, ROOT / f"examples/toy/{name}.py", *arguments]


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = example_command(name, *arguments)
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


SAMPLERS_OF_TOKENS = tuple("ancestral remasking purity confidence mask_predict routing routing_unconditional".split())
SMALL = "--size 400 --test-size 10 --updates 4 --ar-updates 4 --steps 3".split()
BUILD = """import chain, pathlib, systems
with chain.working_in(pathlib.Path({folder!r})):
    names = systems.DINOISER, systems.DIFFORMER, systems.AR
    chain.build(systems.Recipe.of(names, size=400, test_size=10, updates=4, difformer_updates=4, ar_updates=4))"""


@pytest.mark.slow
def test_the_demo_walks_through(tmp_path):
    """Killed on the way and continued: table and picture; a second call has nothing to do; a failed step is reported,
    and what it had made is kept."""
    folder = tmp_path / "a b"
    killed_when(
        folder / "checkpoints/nat/checkpoint_last.pt", example_command("demo", "--out", folder, *SMALL), ENVIRONMENT
    )
    done = example("demo", "--out", folder, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "corpus: complete" in done.stdout and "was interrupted, continues" in done.stdout
    table, record = read_table(folder)
    assert table in done.stdout and "Test set: 10 sentences" in table and "sacreBLEU nrefs:var" in table
    assert [(row["system"], row["calls"]) for row in record["rows"]][1:] == [("NAT", 1), *[("DINOISER", 3)] * 3]
    assert {training["updates"] for training in record["recipe"]["systems"].values()} == {4}
    assert (folder / "picture.png").stat().st_size > 10_000
    again = example("demo", "--out", folder, *SMALL)
    assert table in again.stdout and "begins" not in again.stdout and "made again" not in again.stdout
    failed = example("demo", "--out", folder, *SMALL, "--size", "0")
    assert failed.returncode == 1
    assert "demo: corpus failed" in failed.stderr and "corpus.log" in failed.stderr
    assert (folder / "replaced/corpus-1/corpus").is_dir()


def test_the_short_demo_refuses_what_only_the_full_one_reads(tmp_path):
    refused = example("demo", "--out", tmp_path, "--difformer-updates", "4")
    assert refused.returncode == 2 and "pass --full" in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of a full demo on next to nothing, as far as its trainings."""
    folder = tmp_path_factory.mktemp("built") / "a b"
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'examples/toy'}"}
    program = [sys.executable, "-c", BUILD.format(folder=str(folder))]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_comparison_walks_through(built, tmp_path):
    """One of the tables."""
    done = example("compare", "--run", built, "--out", tmp_path, "--steps", "4", "--tables", "solvers")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "compare-solvers.txt").read_text()
    record = json.loads((tmp_path / "compare-solvers.json").read_text())
    assert text in done.stdout
    assert record["run"] == str(built)
    calls = {(row["system"], row["how"]): row["calls"] for row in record["rows"]}
    assert len(calls) == 7 and calls["DINOISER", "cedi"] == 4 and calls["Difformer", "ddpm"] == 3


@pytest.mark.slow
def test_halving_walks_through(built, tmp_path):
    """From two steps to one: three models, of which the student decodes in one step only."""
    small = "--systems Difformer --steps 2 --updates 2 --teacher-updates 2"
    done = example("progressive", "--run", built, "--out", tmp_path, *small.split())
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "progressive.txt").read_text()
    record = json.loads((tmp_path / "progressive.json").read_text())
    assert text in done.stdout
    assert record["run"] == str(built)
    decoded = [(row["how"], row["steps"], row["calls"]) for row in record["rows"]]
    assert decoded == [("demo", 2, 2), ("demo", 1, 1), ("teacher", 2, 2), ("teacher", 1, 1), ("student", 1, 1)]
    assert "--student-steps 1" in (tmp_path / "logs/train-difformer-student-of-1.log").read_text()


@pytest.mark.slow
def test_tokens_walk_through(tmp_path):
    """Three systems, of which one is in both tables, each at one number of calls, and one with latents in two ways."""
    small = "--size 400 --test-size 10 --updates 4 --ar-updates 4".split()
    done = example("tokens", "--out", tmp_path, *small, "--systems", "cmlm", "mdlm", "lddm-seq", "--calls", "2")
    assert done.returncode == 0, done.stderr
    latents = {f"{calls} + confidence": calls + 2 for calls in (2, 10)}
    for name, ways in (("tokens", {"mask-predict", "confidence", *latents}), ("samplers", None)):
        text, record = ((tmp_path / f"{name}.{kind}").read_text() for kind in ("txt", "json"))
        assert text in done.stdout
        rows = json.loads(record)["rows"]
        assert {row["how"] for row in rows} == (ways or set(SAMPLERS_OF_TOKENS))
        found = {row["how"]: row["calls"] for row in rows if row["system"] == "LDDM, SEQ"}
        assert found == (pytest.approx(latents, abs=1) if ways else {})
        calls = [row["calls"] for row in rows if row["system"] == "CMLM"]
        assert calls == ([2] if ways else [])
        assert all(row["calls"] <= row["steps"] for row in rows if row["system"] == "MDLM")
    done = example("registers", "--run", tmp_path, "--seeds", "2")
    assert done.returncode == 0 and "2 translations of each" in done.stdout, done.stderr
    ways = [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith(("MDLM", "LDDM"))]
    assert ways == ["MDLM", "MDLM", "LDDM, SEQ", "LDDM, SEQ"]


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


@pytest.mark.slow
def test_zero_shot_walks_through(tmp_path):
    """Every direction is translated, and those that were not trained on through xx, too; nothing is made twice."""
    small = "--size 60 --test-size 5 --updates 4 --steps 2".split()
    done = example("zero_shot", "--out", tmp_path, *small)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "table.txt").read_text()
    assert text in done.stdout and "5 sentences a direction, 2 steps, sacreBLEU nrefs:1" in text
    rows = [line.split() for line in text.splitlines()[2:] if line[:1].isalpha() and line[2:3] == "-"]
    assert [row[0] for row in rows] == ["xx-yy", "xx-zz", "yy-xx", "zz-xx", "yy-zz", "zz-yy"]
    assert [" ".join(row[1:-6]) for row in rows] == ["trained on"] * 4 + ["zero-shot"] * 2
    assert [row[-3] == "-" for row in rows] == [True] * 4 + [False] * 2
    assert len((tmp_path / "corpus/train.src").read_text().splitlines()) == 180
    assert "begins" not in example("zero_shot", "--out", tmp_path, *small).stdout
    assert example("zero_shot", "--out", tmp_path, *small, "--no-copies").returncode == 0
    assert len((tmp_path / "corpus/train.src").read_text().splitlines()) == 120


def read_table(folder: Path) -> tuple[str, dict[str, Any]]:
    return (folder / "table.txt").read_text(), json.loads((folder / "table.json").read_text())
