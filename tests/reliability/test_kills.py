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
from kinds import KINDS
from outputs import OURS, QUICK, Way, made
from reliability_fixtures import with_quick
from stored_models import DATA
from support import call, different, read, training

KEEPING = "--save-interval-updates 1 --keep-interval-updates 2 --no-epoch-checkpoints --disable-validation"
STATE = ("model", "last_optimizer_state")


@pytest.mark.parametrize("arch", with_quick(KINDS, ["dinoiser_toy"]))
def test_a_training_that_is_killed_again_and_again(
    arch: str, soak: bool, tmp_path: Path, count: Callable[..., None], trains: None
):
    """Each time it gets on by some updates at least, and saves behind each of them, so that many kills fall into that;
    weights, averages and optimiser are those of a training that was left alone."""
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
        count("kills of a training", command.process.is_alive())
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


@pytest.mark.parametrize("way", with_quick(OURS, QUICK))
def test_a_command_of_ours_that_is_killed(
    way: Way, soak: bool, stored_results: Path, stored_teacher: Path, tmp_path: Path, count: Callable[..., None]
):
    """Every file that it left is whole, and the same command goes on, or refuses what is there and replaces it."""
    (out := tmp_path / "out").mkdir()
    begun = time.perf_counter()
    assert Command(*way(out, stored_results, stored_teacher)).done().returncode == 0
    seconds, whole, rng = time.perf_counter() - begun, made(out), random.Random(1)
    for _ in range(20 if soak else 2):
        shutil.rmtree(out)
        out.mkdir()
        command = Command(*way(out, stored_results, stored_teacher))
        command.process.join(rng.uniform(0.2, 1) * seconds)
        count("kills of a command of ours", command.process.is_alive())
        kill(command.process.pid)
        command.process.join()
        left = {name: found for name, found in made(out).items() if name in whole}
        assert different(left, {name: whole[name] for name in left}) == []
        if Command(*(words := way(out, stored_results, stored_teacher))).done().returncode == 2:
            end = words.index("--") if "--" in words else len(words)  # of its own flags
            done = Command(*words[:end], "--force", *words[end:]).done()
            assert done.returncode == 0, done.stderr
        assert different(made(out), whole) == []
