"""The toy's recipe from end to end, killed in its text and in its training: the table is that of an undisturbed run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from commands import ROOT
from dry_runs import environment, recipe
from kills import killed_when
from support import different, read

from fairseq_diffusion.files.checkpoint import checkpoint_at

SMALL = "--size 640 --test-size 16 --updates 10 --systems diffglat --sets raw"


def finished(out: Path, *more: str) -> str:
    """A run to the end; what it says of its steps."""
    done = recipe("toy", "--out", out, *SMALL.split(), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_killed_recipe_ends_with_the_table_of_an_undisturbed_one(tmp_path: Path):
    out = tmp_path / "run"
    command = ["bash", ROOT / "examples/toy/recipe.sh", "--out", out, *SMALL.split()]
    for there in ("steps/learn-bpe.json", "checkpoints/diffglat-raw/checkpoint_last.pt"):
        killed_when(out / there, command, environment())
    assert json.loads((out / "steps/learn-bpe.json").read_text())["state"] == "complete"
    said = finished(out)
    assert "corpus: complete" in said and "train-diffglat-raw: was interrupted, continues" in said
    assert "Loaded checkpoint" in (out / "logs/train-diffglat-raw.log").read_text()
    assert checkpoint_at(out / "models/diffglat-raw").name == "average.pt"
    assert {"dict.xx.txt", "bpe.yy.codes", "preprocessing.json"} < set(os.listdir(out / "models/diffglat-raw"))

    assert "train-diffglat-raw: made again, as requested" in finished(out, "--redo", "train-diffglat-raw")
    before, now = (
        folder / "models/diffglat-raw/average.pt" for folder in (out / "replaced/average-diffglat-raw-1", out)
    )
    assert not different(read(before)["model"], read(now)["model"])
    for table in ("table.txt", "table.json", "table.md"):
        assert (out / "replaced/table-1" / table).read_text() == (out / table).read_text()
    (record,) = (json.loads(path.read_text()) for path in (out / "records").iterdir())
    assert record["name"] == "Diff-Glat, raw, 1 pass" and record["recipe"] == "toy/recipe"
    (row,) = json.loads((out / "table.json").read_text())["rows"]
    assert record["scores"]["sacrebleu"] == row["sacrebleu"] and record["scores"]["chrf"] == row["chrf"]
    assert record["training"]["updates"] == 10 and record["training"]["minutes"] > 0
    assert record["training"]["command"].startswith("fairseq-train data/raw")
    assert "--gen-subset test" in record["translating"]["command"]
    assert record["translating"]["calls"] == 1 and record["translating"]["settings"]["alignment"] == "length"
    assert "learn-bpe: complete" in finished(out) and not list(out.glob("replaced/*-2"))
