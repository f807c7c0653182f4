"""Killed at any moment and started again, a command ends with what it would have made undisturbed."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from commands import Command
from kills import kill
from runs import MODEL, train_teacher
from stored_models import DATA, checkpoint
from support import TINY, TINY_BLOCKS, TINY_WORDS, call, decoding, different, read, training

KINDS: dict[str, tuple[list[str], str]] = {  # by architecture: its size, and other flags
    "dinoiser_toy": (TINY, "--store-ema --ema-decay 0.9 --self-conditioning random"),
    "difformer_toy": (TINY, ""),
    "mdlm_toy": (TINY_WORDS, "--time-sampler second_moment"),
    "sundae_toy": (TINY_WORDS, ""),
    "rdm_toy_uniform": (TINY_WORDS, "--schedule-modifier spindle"),
    "cmlm_toy": (TINY_WORDS, ""),
    "glat_toy": (TINY_WORDS, ""),
    "diffglat_toy_ctc": (TINY_BLOCKS, ""),
    "diffglat_toy_dag": (TINY_BLOCKS, ""),
    "transformer": (MODEL.split()[2:], "--criterion label_smoothed_cross_entropy"),
}
QUICK = ("dinoiser_toy",)
KEEPING = "--save-interval-updates 1 --keep-interval-updates 2 --no-epoch-checkpoints --disable-validation"
STATE = ("model", "last_optimizer_state")


@pytest.mark.parametrize("arch", KINDS)
def test_a_training_that_is_killed_again_and_again(
    arch: str, soak: bool, tmp_path: Path, count: Callable[..., None], trains: None
):
    """Each time it gets on by some updates at least, and saves behind each of them, so that many kills fall into that;
    weights, averages and optimiser are those of a training that was left alone."""
    if not soak and arch not in QUICK:
        pytest.skip("in make soak")
    size, flags = KINDS[arch]
    kills, rng = 20 if soak else 2, random.Random(arch)

    def arguments(folder: str) -> list[Any]:
        more = f"{flags} {KEEPING} --dropout 0.1 --max-update {15 * kills} --log-format json --log-interval 1"
        return [*training(DATA, tmp_path / folder, more, arch, size=size), "--log-file", tmp_path / f"{folder}.log"]

    call("train", *arguments("whole"))
    log = tmp_path / "killed.log"
    for _ in range(kills):
        command = Command("train", *arguments("killed"))
        updates = log.read_text().count("num_updates") if log.exists() else 0
        while command.process.is_alive() and not (log.exists() and log.read_text().count("num_updates") > updates):
            time.sleep(0.01)
        command.process.join(rng.random() * 0.3)
        count(f"kills of a training ({arch})" if soak else "kills of a training", command.process.is_alive())
        kill(command.process.pid)
        command.process.join()
    done = Command("train", *arguments("killed")).done()
    assert done.returncode == 0, done.stderr
    whole, killed = (read(tmp_path / folder / "checkpoint_last.pt") for folder in ("whole", "killed"))
    for state in (whole, killed):
        assert state["optimizer_history"][-1]["num_updates"] == 15 * kills
    for part in STATE:
        assert different(whole[part], killed[part]) == []
    assert different(whole["extra_state"].get("ema"), killed["extra_state"].get("ema")) == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for seed in (1, 2):
        call("generate", *decoding(DATA, checkpoint("dinoiser"), f"--seed {seed} --results-path {folder / str(seed)}"))
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    return train_teacher(DATA, tmp_path_factory.mktemp("teacher"))


def averaging(out: Path, request: pytest.FixtureRequest) -> list[Any]:
    for number in (1, 2, 3):
        shutil.copy(checkpoint("dinoiser"), out / f"checkpoint_1_{number}.pt")
    return ["average", "--inputs", *sorted(out.glob("checkpoint_*")), "--output", out / "average.pt"]


def scoring(out: Path, request: pytest.FixtureRequest) -> list[Any]:
    systems = [request.getfixturevalue("results") / seed for seed in "12"]
    return ["score", *systems, "--json", out / "table.json", "--markdown", out / "table.md"]


def generating(out: Path, request: pytest.FixtureRequest) -> list[Any]:
    sizes = [word for size in ("--size", "--valid-size", "--test-size") for word in (size, 300)]
    return ["toy", "generate", "--out", out / "toy", *sizes]


def estimating(out: Path, request: pytest.FixtureRequest) -> list[Any]:
    return ["likelihood", DATA, "--path", checkpoint("dinoiser"), "--samples", 2, "--cpu", "--output", out / "bounds"]


def distilling(out: Path, request: pytest.FixtureRequest) -> list[Any]:
    own = ["distill", DATA, "--path", request.getfixturevalue("teacher"), "--output", out / "distilled"]
    return [*own, "--shards", 2, "--max-ratio", 1000, "--", "--cpu", "--batch-size", 8, "--num-workers", 0]


def made(out: Path) -> dict[str, Any]:
    """What is in every file of a folder; but a command's temporary ones, and its locks and logs."""
    files = [file for file in out.rglob("*") if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if file.suffix not in (".log", ".lock")]
    return {str(file.relative_to(out)): read(file) if file.suffix == ".pt" else file.read_bytes() for file in files}


@pytest.mark.parametrize("of", [averaging, scoring, generating, estimating, distilling])
def test_a_command_of_ours_that_is_killed(
    of: Callable[..., list[Any]], soak: bool, tmp_path: Path, count: Callable[..., None], request: Any
):
    """Every file that it left is whole, and the same command goes on, or refuses what is there and replaces it."""
    if not soak and of not in (averaging, generating):
        pytest.skip("in make soak")
    (out := tmp_path / "out").mkdir()
    begun = time.perf_counter()
    assert Command(*of(out, request)).done().returncode == 0
    seconds, whole, rng = time.perf_counter() - begun, made(out), random.Random(1)
    for _ in range(20 if soak else 2):
        shutil.rmtree(out)
        out.mkdir()
        command = Command(*of(out, request))
        command.process.join(rng.uniform(0.2, 1) * seconds)
        count(f"kills of {of.__name__}" if soak else "kills of a command of ours", command.process.is_alive())
        kill(command.process.pid)
        command.process.join()
        left = {name: found for name, found in made(out).items() if name in whole}
        assert different(left, {name: whole[name] for name in left}) == []
        if Command(*(words := of(out, request))).done().returncode == 2:
            done = Command(*words, "--force").done()
            assert done.returncode == 0, done.stderr
        assert different(made(out), whole) == []
