"""Frequency-aware contrast against straight loops, its limits, and what it does to the states of rare words."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.objective.contrast import LEAST_TEMPERATURE, FrequencyContrast, frequency_contrast, rarity_of

COUNTS = torch.tensor([-1, -1, 1000, 300, 100, 10, 0, 1])
TAU = 0.2


def by_hand(z: list[list[float]], views: list[list[float]], words: list[int], g: list[float]) -> list[float]:
    """The formula in loops, over vectors of norm 1."""
    found = []
    for i, y in enumerate(words):
        positive = math.exp(sum(a * b for a, b in zip(z[i], views[i])) / TAU)
        negative = 0.0
        for j, other in enumerate(words):
            e = math.exp(sum(a * b for a, b in zip(z[i], z[j])) / TAU)
            if other != y:
                negative += (1 + g[i] * g[j]) * e
            elif i != j:
                positive += e
        found.append(-math.log(positive / (positive + negative)))
    return found


def example(n: int = 9, h: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, second views, words 2 to 7, and how rare they are."""
    torch.manual_seed(3)
    states, views = torch.randn(2, n, h)
    words = torch.tensor([2, 3, 2, 7, 5, 7, 6, 4, 2])[:n]
    return states, views, words, rarity_of(COUNTS)[words]


def contrast(positions: int = 2048, dropout: float = 0.0, tau: float = TAU) -> FrequencyContrast:
    made = FrequencyContrast(1.0, tau, dropout, positions)
    made.count_words(COUNTS)
    return made


def batch(length: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States [3, L, 5] and words [3, L] of which some are symbols, where they may be compared, and keys."""
    torch.manual_seed(4)
    states = torch.randn(3, 6, 5)
    words = torch.tensor([[0, 2, 3, 2, 4, 1], [0, 7, 5, 7, 6, 1], [0, 2, 2, 4, 1, 1]])
    where = torch.tensor([[1, 1, 1, 1, 0, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
    more = length - 6
    states = F.pad(states, (0, 0, 0, more), value=torch.nan)
    return states, F.pad(words, (0, more), value=1), F.pad(where, (0, more)), noise.fold(torch.arange(3), 8)


# -- how rare a word is


def test_rarity_is_that_of_running_words():
    n = {w: max(int(c), 1) for w, c in enumerate(COUNTS) if c >= 0}
    total = sum(n.values())
    H = {w: -math.log(c / total) for w, c in n.items()}
    mean = sum(n[w] / total * H[w] for w in n)
    deviation = math.sqrt(sum(n[w] / total * (H[w] - mean) ** 2 for w in n))
    expected = [-1, -1, *(min(max((H[w] - mean) / deviation, 0), 1) for w in n)]
    torch.testing.assert_close(rarity_of(COUNTS), torch.tensor(expected))
    assert expected[2] == 0 and 0 < expected[3] < expected[4] <= expected[5] == expected[7] == 1
    assert rarity_of(COUNTS)[6] == rarity_of(COUNTS)[7]  # what never occurs is as rare as what occurs once


def test_words_that_are_all_as_frequent_are_not_rare():
    assert rarity_of(torch.tensor([-1, 7, 7, 7])).tolist() == pytest.approx([-1, 0, 0, 0], abs=1e-6)


# -- the formula


def test_loss_is_that_of_the_loops():
    states, views, words, g = example()
    real = torch.ones(len(words), dtype=torch.bool)
    found = frequency_contrast(states, views, words, g, real, TAU)
    z, view = (F.normalize(x, dim=-1).tolist() for x in (states, views))
    torch.testing.assert_close(found, torch.tensor(by_hand(z, view, words.tolist(), g.tolist())))


def test_gradients_are_those_of_the_loops():
    """By differences of the loops, in the direction of each state."""
    states, views, words, g = example(6, 3)
    real, h = torch.ones(6, dtype=torch.bool), 1e-4

    def loops(x: Tensor) -> float:
        z = F.normalize(x.double(), dim=-1).tolist()
        return sum(by_hand(z, F.normalize(views.double(), dim=-1).tolist(), words.tolist(), g.tolist()))

    leaf = states.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(frequency_contrast(leaf, views, words, g, real, TAU).sum(), leaf)
    for i, k in ((i, k) for i in range(6) for k in range(3)):
        step = torch.zeros(6, 3).double()
        step[i, k] = h
        slope = (loops(states.double() + step) - loops(states.double() - step)) / (2 * h)
        assert gradient[i, k] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_at_the_least_temperature_nothing_is_lost():
    """A word whose own states point away from each other, beside another's that is the same: 2 / tau in nats."""
    states, tau = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True), LEAST_TEMPERATURE
    views = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    words, g, real = torch.tensor([2, 2, 3]), torch.zeros(3), torch.ones(3, dtype=torch.bool)
    found = frequency_contrast(states, views, words, g, real, tau)
    found.sum().backward()
    assert float(found[0]) == pytest.approx(2 / tau - math.log(2), rel=1e-5) and states.grad.isfinite().all()


def test_half_precision_and_autocast_change_nothing():
    """The states are rounded; nothing behind them is."""
    states, views, words, g = example()
    rounded, real = (states.bfloat16(), views.bfloat16()), torch.ones(len(words), dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = frequency_contrast(*rounded, words, g, real, TAU)
    assert found.dtype == torch.float
    expected = frequency_contrast(*(x.float() for x in rounded), words, g, real, TAU)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert contrast().half().rarity.dtype == torch.float


def test_states_far_apart_in_norm_are_compared_by_direction():
    states, views, words, g = example()
    real = torch.ones(len(words), dtype=torch.bool)
    scaled = states * torch.logspace(-3, 3, len(words))[:, None]
    found = (frequency_contrast(x, views, words, g, real, 0.03) for x in (states, scaled))
    torch.testing.assert_close(*found)


# -- what takes part


def mean_by_hand(states: Tensor, words: Tensor, counted: Tensor) -> float:
    """Without dropout a state is its own second view."""
    z = F.normalize(states[counted], dim=-1).tolist()
    each = by_hand(z, z, words[counted].tolist(), rarity_of(COUNTS)[words[counted]].tolist())
    return sum(each) / len(each)


@pytest.mark.parametrize("length", [6, 11])
def test_a_batch_is_the_mean_over_its_words_whatever_the_padding(length: int):
    """Symbols and other positions take no part, even if they are no numbers."""
    states, words, where, keys = batch(length)
    counted = where & (words > 1)
    found = contrast()(states, words, where, keys)
    assert found.shape == (3,) and float(found.sum()) == pytest.approx(mean_by_hand(states, words, counted), rel=1e-5)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(contrast()(*(x[order] for x in (states, words, where, keys))), found[order])


def test_gradients_flow_to_what_takes_part_alone():
    states, words, where, keys = batch(8)
    leaf = states.requires_grad_()
    contrast(dropout=0.5).train()(leaf, words, where, keys).sum().backward()
    counted = where & (words > 1)
    assert leaf.grad[counted].abs().sum(-1).gt(0).all() and not leaf.grad[~counted].any()


@pytest.mark.parametrize("words", [[[0, 1, 0, 1]], [[3, 3, 3, 3]], [[0, 3, 0, 1]]])
def test_where_nothing_is_told_apart_the_loss_is_0_with_gradients(words: list[list[int]]):
    """No word at all, one word in all positions, and a single position."""
    states = torch.randn(1, 4, 5, requires_grad=True)
    found = contrast()(states, torch.tensor(words), torch.ones(1, 4, dtype=torch.bool), torch.tensor([1]))
    found.sum().backward()
    assert found.tolist() == [0] and not states.grad.any()


def test_a_second_view_is_dropout_of_the_state():
    """In training: one position among others' words, whose loss is then larger, and another each time."""
    states, words, where, keys = batch()
    views = contrast(dropout=0.5)
    torch.manual_seed(1)
    first, second = (views.train()(states, words, where, keys).sum() for _ in range(2))
    torch.manual_seed(1)
    again, plain = views(states, words, where, keys).sum(), views.eval()(states, words, where, keys).sum()
    assert first == again != second and plain < min(first, second)


# -- too many positions


def test_no_more_positions_than_are_affordable():
    states, words, where, keys = batch()
    counted = where & (words > 1)
    order = noise.uniform(keys, 6).masked_fill(~counted, 2)
    chosen = order <= order.flatten().sort().values[4]
    found = contrast(positions=5)(states, words, where, keys)
    assert chosen.sum() == 5 and float(found.sum()) == pytest.approx(mean_by_hand(states, words, chosen), rel=1e-5)
    padded = contrast(positions=5)(*batch(9))
    torch.testing.assert_close(padded, found)


def test_all_positions_are_chosen_as_often():
    """By the keys of the update: 4 of 9."""
    states, words, where, _ = batch()
    counted, times = where & (words > 1), torch.zeros(3, 6)
    for update in range(600):
        leaf = states.clone().requires_grad_()
        contrast(positions=4)(leaf, words, where, noise.fold(torch.arange(3), update)).sum().backward()
        times += leaf.grad.abs().sum(-1) > 0
    share = times[counted] / 600
    assert counted.sum() == 9 and not times[~counted].any()
    assert (share - 4 / 9).abs().max() < 0.1  # a few draws hold one word only, which then has no gradient


# -- what is learnt


def cosines(x: Tensor) -> Tensor:
    z = F.normalize(x, dim=-1)
    return z @ z.T


def test_states_of_different_words_part():
    """States that begin close together, with the term alone: those of different words part, those of one meet."""
    torch.manual_seed(0)
    words = torch.tensor([2, 2, 3, 3, 6, 6, 7, 7])
    base = torch.randn(16) + 0.3 * torch.randn(8, 16)
    g = rarity_of(COUNTS)[words]
    real = torch.ones(8, dtype=torch.bool)
    states = base.clone().requires_grad_()
    optimizer: Any = torch.optim.SGD([states], lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        frequency_contrast(states, states, words, g, real, 0.5).mean().backward()
        optimizer.step()
    before, after, same = cosines(base), cosines(states.detach()), words[:, None] == words
    assert after[~same].max() < 0.3 < before[~same].min()
    assert after[same].min() > 0.95


def test_rarer_words_are_pushed_harder():
    """The similarity of two rare words falls more in one step than it would without weights."""
    torch.manual_seed(0)
    words, base = torch.tensor([2, 2, 3, 3, 6, 6, 7, 7]), torch.randn(16) + 0.3 * torch.randn(8, 16)
    g, real = rarity_of(COUNTS)[words], torch.ones(8, dtype=torch.bool)

    def after_a_step(g: Tensor) -> Tensor:
        leaf = base.clone().requires_grad_()
        (slope,) = torch.autograd.grad(frequency_contrast(leaf, leaf, words, g, real, 0.5).sum(), leaf)
        return cosines(base - 0.01 * slope)[4:6, 6:].mean()

    assert after_a_step(g) < after_a_step(0 * g) < cosines(base)[4:6, 6:].mean()
