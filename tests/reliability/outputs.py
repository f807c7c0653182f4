"""Commands that write files, each into a folder of its own, and what is in the files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

from stored_models import DATA, checkpoint
from support import decoding, read, training

Way = Callable[[Path, Path, Path], list[Any]]  # of the folder to write to, of results, and a teacher


def train(out: Path, results: Path, teacher: Path) -> list[Any]:
    more = "--save-interval-updates 2 --no-epoch-checkpoints --disable-validation --max-update 6"
    return ["train", *training(DATA, out, more)]


def generate(out: Path, results: Path, teacher: Path) -> list[Any]:
    return ["generate", *decoding(DATA, checkpoint("dinoiser"), f"--results-path {out}")]


def average(out: Path, results: Path, teacher: Path) -> list[Any]:
    for number in (1, 2, 3):
        shutil.copy(checkpoint("dinoiser"), out / f"checkpoint_1_{number}.pt")
    return ["average", "--inputs", *sorted(out.glob("checkpoint_*")), "--output", out / "average.pt"]


def score(out: Path, results: Path, teacher: Path) -> list[Any]:
    own = ["score", "--hyp", results / "1", results / "2", "--ref", results / "references"]
    return [*own, "--json", out / "table.json", "--markdown", out / "table.md"]


def toy(out: Path, results: Path, teacher: Path) -> list[Any]:
    sizes = [word for size in ("--size", "--valid-size", "--test-size") for word in (size, 300)]
    return ["toy", "generate", "--out", out / "toy", *sizes]


def likelihood(out: Path, results: Path, teacher: Path) -> list[Any]:
    return ["likelihood", DATA, "--path", checkpoint("dinoiser"), "--samples", 2, "--cpu", "--output", out / "bounds"]


def durations(out: Path, results: Path, teacher: Path) -> list[Any]:
    return ["durations", DATA, "--path", checkpoint("diffglat_ctc"), "--cpu", "--output", out / "durations"]


def export(out: Path, results: Path, teacher: Path) -> list[Any]:
    return ["export", checkpoint("diffglat_ctc"), "--data", DATA, "--output", out / "exported"]


def distill(out: Path, results: Path, teacher: Path) -> list[Any]:
    own = ["distill", DATA, "--path", teacher, "--output", out / "distilled", "--shards", 2, "--max-ratio", 1000]
    return [*own, "--", "--cpu", "--batch-size", 8, "--num-workers", 0]


OURS: tuple[Way, ...] = (average, toy, score, likelihood, durations, export, distill)
QUICK = (average, toy, train, generate)  # in make test; the others are in make soak alone


def made(out: Path) -> dict[str, Any]:
    """What is in every file of a folder; but a command's temporary ones, and its locks and logs."""
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(out).parts)  # noqa: E731
    files = [file for file in out.rglob("*") if file.is_file() and not hidden(file)]
    files = [file for file in files if file.suffix not in (".log", ".lock", ".tmp")]
    return {str(file.relative_to(out)): read(file) if file.suffix == ".pt" else file.read_bytes() for file in files}
