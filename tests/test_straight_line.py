"""Losses and trajectories of stored models against DINOISER and Difformer written out in a straight line."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import stored_models as stored
import straight_line
import torch
from fairseq.data import Dictionary
from support import read
from torch import Tensor

import fairseq_diffusion

BOS, SEED, VALIDATION = 0, 1, -1

# -- random numbers as a function of seed, update and sentence: SplitMix64 --------------------------------------------

GOLDEN, WORD = 0x9E3779B97F4A7C15, 2**64


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def fold(key: int, *data: int) -> int:
    for value in data:
        key = mix((key + GOLDEN) % WORD) ^ (value * GOLDEN % WORD)
    return mix(key)


def draws(key: int, count: int) -> list[int]:
    return [mix((key + i * GOLDEN) % WORD) for i in range(1, count + 1)]


def uniform(key: int) -> float:
    return ((draws(key, 1)[0] >> 12) + 0.5) / 2**52


def normal(key: int, length: int, dim: int) -> Tensor:
    """Box and Muller's, from the two halves of each draw, [length, dim]."""
    numbers = [
        math.sqrt(-2 * math.log(((bits >> 32) + 0.5) / 2**32)) * math.cos(2 * math.pi * (bits % 2**32) / 2**32)
        for bits in draws(key, length * dim)
    ]
    return torch.tensor(numbers, dtype=torch.float64).view(length, dim)


def decoding_noise(source: list[int], draw: int, length: int, dim: int) -> Tensor:
    """The `draw`-th noise of a sentence's first candidate; `source` without <s>."""
    words = sum(mix((token * GOLDEN + place) % WORD) for place, token in enumerate(source, 1)) % WORD
    return normal(fold(fold(fold(words, SEED), length, 0), draw), length, dim)


# -- losses -----------------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "dinoiser": {"mse": 1.0, "rounding": 1.0, "length": 0.1},
    "difformer": {"mse": 1.0, "anchor": 1.0, "length": 0.1},
}
MOMENTS = ("validation", 7, 8, 50)


def weights(name: str) -> straight_line.Weights:
    state = read(stored.checkpoint(name))["model"]
    return {key.removeprefix("translator."): value.double() for key, value in state.items()}


def rows(tokens: Tensor, pad: int) -> list[list[int]]:
    """Each sentence from <s> to </s>, which pads may stand between in fairseq's batch."""
    return [[BOS, *(token for token in row if token != pad)] for row in tokens.tolist()]


def second_pass(update: int) -> bool:
    """Whether random self-conditioning has a second pass in this update."""
    return update == VALIDATION or uniform(fold(fold(SEED, update % WORD), 2)) < 0.5


def dinoiser(W: straight_line.Weights, update: int) -> Callable[..., dict[str, Tensor]]:
    """Its clipping is adapted to the embeddings every fifty updates."""
    sigma_min = straight_line.clipping(W) if update == 50 else float(W["schedule.modifier.sigma_min"])
    return partial(straight_line.dinoiser_loss, W, sigma_min=sigma_min)


def difformer(W: straight_line.Weights, update: int) -> Callable[..., dict[str, Tensor]]:
    return partial(straight_line.difformer_loss, W, factor=2.0, conditioned=second_pass(update))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("system", [dinoiser, difformer])
def test_the_loss_is_what_the_paper_says(system: Callable[..., Any], moment: Any):
    model, _, batch = stored.validation(stored.checkpoint(system.__name__))
    src_tokens, target, ids = batch["net_input"]["src_tokens"], batch["target"], batch["id"]
    output = stored.at(model, moment)(src_tokens=src_tokens, target=target, ids=ids)
    update, W = VALIDATION if moment == "validation" else moment, weights(system.__name__)
    loss, expected = system(W, update), dict.fromkeys(output.terms, 0.0)
    for number, x, y in zip(ids.tolist(), rows(src_tokens, model.pad), rows(target, model.pad)):
        key = fold(number, SEED, update % WORD)
        eps = normal(fold(key, 1), len(y), W["state.weight"].shape[1])
        for term, value in loss(x, y, u=uniform(fold(key, 0)), eps=eps).items():
            expected[term] += float(value)
    found = {term: float(shares.sum()) for term, shares in output.terms.items()}
    assert found == pytest.approx(expected, rel=1e-5)
    total = sum(weight * expected[term] for term, weight in OBJECTIVES[system.__name__].items())
    assert output.total.item() == pytest.approx(total, rel=1e-5)


def test_random_self_conditioning_falls_on_either_side():
    assert {second_pass(update) for update in MOMENTS if update != "validation"} == {True, False}


# -- trajectories -----------------------------------------------------------------------------------------------------

TRAJECTORIES = {
    "dinoiser": partial(straight_line.cedi, steps=20),
    "difformer": partial(straight_line.respaced_ddpm, steps=20, left_out=5),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_trajectory_is_what_the_paper_says(name: str):
    """Every step's words and their probabilities, with the system's own sampler in 20 steps."""
    sentences = ["c d a e f", "h d", "g b a c d e h a"]
    translator = fairseq_diffusion.load(stored.checkpoint(name), data=stored.DATA)
    dictionary, W = Dictionary.load(str(stored.DATA / "dict.a.txt")), weights(name)
    E = W["state.weight"] if name == "difformer" else straight_line.dinoiser_table(W)
    for sentence, translation in zip(sentences, translator.translate(sentences, steps=20, history=True)):
        source = [*(dictionary.index(word) for word in sentence.split()), dictionary.eos()]
        estimates = TRAJECTORIES[name](W, [BOS, *source], partial(decoding_noise, source))
        (candidate,) = translation.candidates
        assert candidate.calls == len(candidate.history) == len(estimates)
        for step, x_0 in zip(candidate.history, estimates):
            p, words = (x_0 @ E.T).softmax(-1).max(-1)
            assert step["tokens"] == [dictionary[word] for word in words.tolist()]
            assert step["p"] == pytest.approx(p.tolist(), abs=1e-4)
