"""Threads that share a model, each with its own options: the answers are those of one thread, to the last bit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import stored_models
from fairseq.data import LanguagePairDataset

import fairseq_diffusion

SOURCES = ["a b c d", "e f", "g h a b c", "d", "b b e", "c a", "h g f e d c", "a a"]
TEMPLATES = ["___ C ___ A ___", "B E ___", "___ A H .", "___", "F F .", "___ B", "G ___", "___ A ___"]
TARGETS = ["A B C", "E F .", "G", "D", "B B", "A", "C D E F", "A A A"]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "dinoiser": [
        {"sampler": "ddpm", "noise_beam": 3, "length_beam": 2, "select": "mbr", "steps": 4, "seed": 2, "nbest": 2},
        {"sampler": "cedi", "steps": 3, "seed": 3, "history": True},
        {"sampler": "ddim", "steps": 5, "noise_beam": 4, "prune_after": "2", "batch_size": 3},
        {"sampler": "ddpm", "steps": 4, "noise_beam": 2, "select": "likelihood", "likelihood_samples": 2, "seed": 7},
    ],
    "diffglat_dag": [
        {"path_search": "beam", "beam": 3, "nbest": 2},
        {"path_search": "sample", "noise_beam": 4, "select": "mbr", "mbr_units": "words", "seed": 5},
        {"passes": 2, "batch_size": 2},
        {},
    ],
    "cmlm": [{"passes": 3}, {"length_beam": 3, "select": "joint"}, {"draft": 0.5}, {"passes": 2, "batch_size": 3}],
}
LIKELIHOODS = {"dinoiser": {"samples": 2, "steps": 20}, "diffglat_dag": {}, "cmlm": None}
ROUNDS = 2


@pytest.fixture(autouse=True)
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads take turns after every few instructions, and while fairseq has seeded numpy's generator."""
    ordered, usual = LanguagePairDataset.ordered_indices, sys.getswitchinterval()
    monkeypatch.setattr(LanguagePairDataset, "ordered_indices", lambda dataset: (time.sleep(2e-3), ordered(dataset))[1])
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, each in its own thread, begun together."""
    together = Barrier(len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:
        begun = [pool.submit(lambda call=call: (together.wait(), call())[1]) for call in calls]
        return [each.result() for each in begun]


@pytest.mark.parametrize("name", OPTIONS)
def test_threads_with_different_options_do_not_disturb_each_other(name: str):
    draft = stored_models.checkpoint("nat") if name == "cmlm" else None
    model = fairseq_diffusion.load(stored_models.checkpoint(name), data=stored_models.DATA, device="cpu", draft=draft)
    assert model is not None
    calls: list[Callable[[], Any]] = [partial(model.translate, SOURCES, **asked) for asked in OPTIONS[name]]
    calls.append(partial(model.complete, SOURCES, TEMPLATES, **({"steps": 4} if name == "dinoiser" else {})))
    if (asked := LIKELIHOODS[name]) is not None:
        calls.append(partial(model.likelihood, SOURCES, TARGETS, **asked, seed=4))
    alone = [call() for call in calls]
    assert len({str(each) for each in alone}) == len(calls)
    np.random.seed(11)
    for _ in range(ROUNDS):
        assert at_once(calls) == alone
    assert np.random.rand() == np.random.RandomState(11).rand()  # a user's own numbers


def test_an_autoregressive_model(data: Path, teacher: Path, sources: list[str]):
    model = fairseq_diffusion.load(teacher, data=data, device="cpu")
    assert model is not None
    asked = [{"beam": 1}, {"beam": 3, "nbest": 2}, {"beam": 4, "lenpen": 0.6}, {"beam": 2, "batch_size": 3}]
    calls = [partial(model.translate, sources, **each) for each in asked]
    alone = [call() for call in calls]
    for _ in range(ROUNDS):
        assert at_once(calls) == alone


def test_models_are_loaded_one_at_a_time(data: Path, checkpoint: Path, sources: list[str]):
    """With averaged weights and without, which is a setting of the process."""
    load = partial(fairseq_diffusion.load, checkpoint, data=data, device="cpu")
    calls = [lambda: load(use_ema=True).translate(sources, steps=2), lambda: load().translate(sources, steps=2)] * 2
    alone = [call() for call in calls[:2]]
    assert alone[0] != alone[1]
    assert at_once(calls) == alone * 2
