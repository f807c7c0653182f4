"""Every sampler against closed forms and an oracle denoiser."""

import math

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process import noise
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.sampler.grid import make_grid
from fairseq_diffusion.sampler.loop import sample
from fairseq_diffusion.sampler.rules import SAMPLERS, Step, ancestral, deterministic

keys = noise.fold(torch.arange(2), 5)


def draw(i):
    return noise.normal(noise.fold(keys, i), 3, 4)


def run(name, denoise, steps=20, told="usual", schedule="sigma_t", **kwargs):
    sampler = SAMPLERS[name]
    grid = make_grid(Schedule(schedule), steps, told=sampler.told if told == "usual" else told)
    return sample(denoise, draw(0), grid, sampler.rule, lambda i: draw(i + 1), **kwargs)


def muddled(x_t, t, c):
    """Some smooth function of all its arguments."""
    return torch.tanh(x_t + 0.3 * c) * (1 - t[:, None, None] / 2)


@pytest.mark.parametrize("schedule", CURVES)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_an_oracle_is_believed(name, schedule, steps):
    truth = torch.randn(2, 3, 4)
    result = run(name, lambda x_t, t, c: truth, steps, schedule=schedule)
    assert torch.equal(result.x_0, truth)
    assert result.calls == steps


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_oracle_leads_the_state_to_the_truth(name):
    """Not just the last estimate: after the last step x is the truth, up to the noise of the final time."""
    truth, states = torch.randn(2, 3, 4), []

    def oracle(x_t, t, c):
        states.append(x_t)
        return truth

    run(name, oracle, steps=400, told=None)
    assert (states[-1] - truth).abs().max() < 0.02


def test_cedi_with_equal_grids_is_ddim_bit_for_bit():
    ddim = run("ddim", muddled)
    schedule = Schedule("sigma_t")
    equal = make_grid(schedule, 20, told=(1.0, 1e-3))
    assert torch.equal(equal.where, equal.told)
    cedi = sample(muddled, draw(0), equal, SAMPLERS["cedi"].rule, draw)
    assert torch.equal(cedi.x_0, ddim.x_0)
    assert not torch.equal(run("cedi", muddled).x_0, ddim.x_0)


def test_cedi_follows_the_paper_step_by_step():
    x, c = draw(0).double(), torch.zeros(2, 3, 4).double()
    t, tau = [torch.linspace(1, end, 21).double() for end in (1e-3, 0.99)]
    alpha = lambda s: math.sqrt((1 - s) * (1 + s))  # noqa: E731
    for i in range(20):
        x_0 = muddled(x, tau[i].expand(2), c)
        eps = (x - alpha(tau[i]) * x_0) / tau[i]
        x, c = alpha(t[i + 1]) * x_0 + t[i + 1] * eps, x_0
    assert torch.allclose(run("cedi", muddled).x_0.double(), x_0, atol=1e-5)


def test_ddpm_draws_from_the_posterior():
    """Bayes' rule by hand: q(x_s | x_t, x_0) is the product of q(x_s | x_0) and q(x_t | x_s), both Gaussian."""
    s, t, x_t, x_0 = 0.55, 0.7, 0.8, -0.4
    schedule = Schedule("sigma_t")
    now, next_ = schedule.level(times([[t]])), schedule.level(times([[s]]))
    ratio = (now.alpha / next_.alpha).item()
    forward = t**2 - ratio**2 * s**2
    variance = 1 / (1 / s**2 + ratio**2 / forward)
    mean = variance * (next_.alpha.item() * x_0 / s**2 + ratio * x_t / forward)

    def step(z):
        one = torch.ones(1, 1, 1, dtype=torch.float64)
        return ancestral(x_t * one, x_0 * one, Step(now, now, next_, lambda: z * one)).item()

    assert step(0.0) == pytest.approx(mean, rel=1e-12)
    assert (step(1.0) - step(0.0)) ** 2 == pytest.approx(variance, rel=1e-12)


def test_ddpm_keeps_the_marginal():
    """x_t ~ q(x_t | x_0) goes to x_s ~ q(x_s | x_0)."""
    schedule = Schedule("cosine")
    now, next_ = schedule.level(times([[0.8]])), schedule.level(times([[0.5]]))
    x_0 = torch.full((1, 100_000, 1), 0.7)
    x_t = now.mix(x_0, noise.normal(torch.tensor([1]), 100_000, 1))
    x_s = ancestral(x_t, x_0, Step(now, now, next_, lambda: noise.normal(torch.tensor([2]), 100_000, 1)))
    assert x_s.mean().item() == pytest.approx(next_.alpha.item() * 0.7, abs=0.02)
    assert x_s.std().item() == pytest.approx(next_.sigma.item(), abs=0.02)


def test_deterministic_rule_keeps_the_noise_it_finds():
    schedule = Schedule("sigma_t")
    now, next_ = schedule.level(times([[0.9]])), schedule.level(times([[0.2]]))
    x_0, eps = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    x_s = deterministic(now.mix(x_0, eps), x_0, Step(now, now, next_, lambda: eps))
    assert torch.allclose(x_s, next_.mix(x_0, eps), atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds(name):
    assert torch.equal(run(name, muddled).x_0, run(name, muddled).x_0)


def test_the_loop_shows_each_estimate_and_conditions_on_the_last():
    seen, conditions = [], []

    def denoise(x_t, t, c):
        conditions.append(c)
        return muddled(x_t, t, c)

    result = run("ddim", denoise, steps=4, on_step=lambda i, x_0: seen.append((i, x_0)))
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], result.x_0)
    assert conditions[0].abs().sum() == 0
    assert all(torch.equal(c, x_0) for c, (_, x_0) in zip(conditions[1:], seen))


def test_told_times_stay_distinct_under_bf16_autocast():
    told = []
    with torch.autocast("cpu", torch.bfloat16):
        run("cedi", lambda x_t, t, c: told.append(t[0].item()) or c)
    assert len(set(told)) == 20
    assert told[0] == 1 and told[-1] == pytest.approx(0.99 + 0.01 / 20, abs=1e-6)


def test_told_levels_are_noise_levels_whatever_the_schedule():
    grid = make_grid(Schedule("sqrt"), 20, told=(1.0, 0.99))
    assert grid.told[-1].item() == pytest.approx(0.9606, abs=5e-5)
    assert grid.told_level.sigma[-1].item() == pytest.approx(0.99, abs=1e-6)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"steps": 0}, "0 decoding steps"),
        ({"steps": -3}, "takes 1 or more"),
        ({"steps": 2, "told": (0.9, 0.99)}, "0 < end <= start <= 1"),
        ({"steps": 2, "told": (1.5, 0.99)}, "0 < end <= start <= 1"),
        ({"steps": 2, "final_time": 0.0}, "--final-time"),
        ({"steps": 2, "final_time": 1.0}, "--final-time"),
    ],
)
def test_impossible_grids_are_explained(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        make_grid(Schedule("sigma_t"), **arguments)


def test_levels_are_exact_near_pure_noise():
    level = Level.variance_preserving(times([1 - 1e-12]))
    assert level.alpha.item() == pytest.approx(math.sqrt(2e-12), rel=1e-4)
