"""A program that translates for days: memory stays flat, and what is broken off leaves nothing behind."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Callable

import pytest
import torch
from commands import Command
from stored_models import DATA, checkpoint
from support import USER_DIR, decoding, hypotheses

import fairseq_diffusion

MODELS = {"dinoiser": {"steps": 2}, "cmlm": {"passes": 2}, "diffglat_ctc": {}, "diffglat_dag": {}}
ROOM = 20  # MiB that memory may move by: what the allocator keeps depends on the batches


def lines(number: int) -> list[str]:
    rng = random.Random(1)
    return [" ".join(f"w{rng.randrange(12)}" for _ in range(rng.randint(1, 20))) for _ in range(number)]


def mebibytes(process: int | str = "self") -> float:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def tensors() -> int:
    gc.collect()
    return sum(torch.is_tensor(each) for each in gc.get_objects())


@pytest.mark.parametrize("name", MODELS)
def test_python_keeps_nothing_of_what_it_has_translated(name: str, soak: bool, count: Callable[..., None]):
    model = fairseq_diffusion.load(checkpoint(name), data=DATA, device="cpu")
    sentences, rounds = lines(250), 100 if soak else 2
    first = [each.text for each in model.translate(sentences, batch_size=50, **MODELS[name])]
    kept = tensors(), mebibytes()
    for _ in range(rounds):
        assert [each.text for each in model.translate(sentences, batch_size=50, **MODELS[name])] == first
        count("sentences translated in Python, one after the other", len(sentences))
    assert tensors() == kept[0]
    assert mebibytes() < kept[1] + ROOM


def test_interactive_keeps_nothing_of_what_it_has_translated(soak: bool, tmp_path: Path, count: Callable[..., None]):
    number = 100_000 if soak else 1_000
    file = tmp_path / "lines"
    file.write_text("".join(f"{line}\n" for line in lines(number)))
    usual = f"-s a -t b --cpu --buffer-size 250 --batch-size 50 --path {checkpoint('cmlm')} --input {file}"
    command = Command("interactive", DATA, *USER_DIR, *usual.split())
    seen: dict[int, float] = {}  # by how much of the output there was
    while command.process.is_alive():
        written = command.output.stat().st_size if command.output.exists() else 0
        seen[written] = max(mebibytes(command.process.pid), seen.get(written, 0))
        command.process.join(0.05)
    done = command.done()
    assert done.returncode == 0 and len(hypotheses(done.stdout)) == number
    count("lines of fairseq-interactive, one after the other", number)
    whole = max(seen)
    late = [memory for written, memory in seen.items() if written > 0.9 * whole]
    early = [memory for written, memory in seen.items() if 0 < written < 0.5 * whole]
    assert not (early and late) or max(late) < max(early) + ROOM


def test_a_translation_that_is_broken_off_leaves_nothing_behind(
    soak: bool, count: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    """By Ctrl-C, at any moment.  One that falls into a callback of the garbage collector goes to the hook, in which
    pytest would keep it, with all that its frames hold."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    model = fairseq_diffusion.load(checkpoint("dinoiser"), data=DATA, device="cpu")
    sentences, rng = lines(100), random.Random(2)
    begun = time.perf_counter()
    undisturbed = model.translate(sentences, steps=4)
    seconds = time.perf_counter() - begun
    kept = tensors()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C
    for _ in range(200 if soak else 5):
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.05, 0.9) * seconds)
        try:
            model.translate(sentences, steps=4)
        except KeyboardInterrupt:
            count("translations broken off by Ctrl-C")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert model.translate(sentences, steps=4) == undisturbed
    signal.signal(signal.SIGALRM, before)
    assert tensors() == kept


def test_a_command_that_is_broken_off_leaves_no_half_results(soak: bool, tmp_path: Path, count: Callable[..., None]):
    rng, results = random.Random(3), tmp_path / "results"
    flags = f"--max-tokens 20 --results-path {results}"
    for _ in range(20 if soak else 2):
        command = Command("generate", *decoding(DATA, checkpoint("dinoiser"), flags))
        while command.process.is_alive() and not results.exists():
            time.sleep(0.01)
        command.process.join(rng.random() * 0.3)
        if command.process.is_alive():
            os.kill(command.process.pid, signal.SIGINT)
            command.process.join(60)
            count("fairseq-generate broken off by Ctrl-C")
        assert not (results / "generate-test.txt").exists() or (results / "generate-test.json").exists()
    done = Command("generate", *decoding(DATA, checkpoint("dinoiser"), flags)).done()
    assert done.returncode == 0 and len(hypotheses((results / "generate-test.txt").read_text())) > 5
