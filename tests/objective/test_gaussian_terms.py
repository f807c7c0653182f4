"""The bound of Gaussian diffusion in nats, in continuous time, against closed forms and Bayes' rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fairseq_diffusion.objective.chain_bound import GaussianBound
from fairseq_diffusion.objective.terms import TERMS, Outcome
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.states.embedding import EmbeddingState

MASK = torch.ones(1, 5, dtype=torch.bool)


def outcome(schedule: Schedule, t: Any, weight: Any = 1.0, error: float = 0.0) -> Outcome:
    """One sentence at time t, whose estimate is off by `error` in each of four dimensions."""
    torch.manual_seed(0)
    state, tokens = EmbeddingState(9, 4, init_std=1.0), torch.randint(9, (1, 5))
    t, x_0 = torch.as_tensor(t, dtype=torch.float64).view(1, 1), state.encode(tokens)
    level, eps = schedule.level(t), torch.randn(1, 5, 4)
    parts = tokens, x_0, x_0, level.mix(x_0, eps), MASK, t, level, torch.tensor([float(weight)]), t[0]
    return Outcome(*parts, [(x_0 + error)], state, schedule)


def snr(level: Level) -> torch.Tensor:
    return (level.alpha / level.sigma).square()


@pytest.mark.parametrize("modifier", ["none", "factor_vp", "least_variance"])
@pytest.mark.parametrize("curve", ["log_snr", "variance_exploding", "edm_wide"])
def test_the_mean_over_times_of_an_error_is_what_all_of_its_levels_cost(curve: str, modifier: str):
    """1/2 (SNR(0) - SNR(1)) || x_0-hat - x_0 ||^2 where the error is the same at all times, however they are drawn."""
    schedule = Schedule(curve, modifier, 2.0 if modifier == "factor_vp" else 1.0)
    if modifier == "least_variance":
        t = torch.rand(4000, dtype=torch.float64)
        schedule.modifier.observe(t, 0.1 + (3 * t).exp(), None, MASK)
        schedule.update(torch.zeros(2, 2))
    u = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    times, weights = schedule.training_time(u), schedule.training_weight(u)
    found = torch.stack([TERMS["snr_mse"](outcome(schedule, t, w, 0.5), MASK)[0] for t, w in zip(times, weights)])
    first, last = (snr(schedule.level(torch.tensor([[t]]).double())) for t in (0.0, 1.0))
    expected = float(first - last) / 2 * 4 * 0.25
    assert torch.allclose(found.mean(0), torch.full((5,), expected), rtol=5e-3)


def test_a_step_of_the_chain_costs_what_its_part_of_time_does():
    """The bound of a chain of T steps is the sum that this integral is the limit of."""
    schedule = Schedule("log_snr")
    o = outcome(schedule, 0.4)
    bound = GaussianBound(o.state, schedule, torch.tensor([0.4 - 5e-5, 0.4 + 5e-5], dtype=torch.float64))
    levels = [bound.level(torch.tensor([step]), o.tokens) for step in (0, 1)]
    rate = float(snr(levels[0]) - snr(levels[1])) / 1e-4
    assert float(schedule.snr_rate(o.t)) == pytest.approx(rate, rel=1e-6)


def test_words_are_read_at_time_0_by_their_distance():
    """p(y | x) is proportional to exp(-|| x - alpha E[y] ||^2 / 2 sigma^2), with the noise of x_t."""
    schedule = Schedule("variance_exploding")  # whose least noise is large
    o = outcome(schedule, 0.6)
    first = schedule.level(torch.zeros(1, 1).double())
    eps = (o.s_t - o.level.alpha * o.s_0) / o.level.sigma
    x = (first.alpha * o.s_0 + first.sigma * eps).double()
    distance = (x[..., None, :] - first.alpha * o.state.table().double()).square().sum(-1)
    log_p = (-distance / (2 * first.sigma.square())).log_softmax(-1)
    expected = -log_p.gather(-1, o.tokens[..., None])[..., 0].float()
    found = TERMS["reconstruction"](o, MASK)
    assert expected.max() > 0.1
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.autograd.grad(found.sum(), o.state.weight)[0].abs().sum() > 0
    weighted = replace(o, weight=torch.tensor([3.0]))
    assert torch.equal(TERMS["reconstruction"](weighted, MASK), found)  # it does not depend on the time drawn
