"""A schedule in discrete steps and with a noise factor."""

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import times
from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.schedule import Schedule

T = 2000
ALL = torch.arange(1, T + 1).double() / T


@pytest.mark.parametrize("F, noise", [(4.0, 0.484), (3.5, 0.424)])
def test_smallest_noise_and_largest_signal_trained_on(F, noise):
    schedule = Schedule("sqrt_offset", "factor", F, T)
    level = schedule.level(schedule.training_time(times([1e-6])))
    assert level.sigma.item() == pytest.approx(noise, abs=5e-4)
    assert level.alpha.item() == pytest.approx(0.993, abs=5e-4)


@pytest.mark.parametrize("F", [3.5, 4.0])
def test_both_factors_have_the_same_snr_at_every_step(F):
    louder, vp = (Schedule("sqrt_offset", name, F, T).level(ALL) for name in ("factor", "factor_vp"))
    snr, vp_snr = ((level.alpha / level.sigma).square() for level in (louder, vp))
    assert torch.allclose(snr, vp_snr, rtol=1e-12, atol=0)
    assert torch.allclose(vp.alpha.square() + vp.sigma.square(), torch.ones_like(ALL), rtol=0, atol=1e-14)
    abar = Schedule("sqrt_offset", steps=T).level(ALL).alpha.square()
    assert torch.allclose(vp.alpha.square(), abar / (F**2 - (F**2 - 1) * abar), rtol=1e-12, atol=0)


def test_decoding_with_a_factor_of_its_own():
    trained, plain = Schedule("sqrt_offset", "factor", 4.0, T), Schedule("sqrt_offset", steps=T)
    level, expected = trained.level(ALL, factor=1.0), plain.level(ALL)
    assert torch.equal(level.sigma, expected.sigma) and torch.equal(level.alpha, expected.alpha)
    assert torch.equal(trained.level(ALL).sigma, 4 * expected.sigma)


@pytest.mark.parametrize("steps", [0, T])
@pytest.mark.parametrize("name", ["factor", "factor_vp"])
def test_time_is_of_the_base_curve_before_any_factor(name, steps):
    sigma = times([0.2, 0.5, 0.99])
    assert torch.equal(Schedule("cosine", name, 4.0, steps).time(sigma), Schedule("cosine", steps=steps).time(sigma))


def test_betas_of_some_of_the_steps_multiply_up_to_the_table():
    schedule = Schedule("sqrt_offset", steps=T)
    some = schedule.snap(torch.linspace(0, 1, 21))
    abar = schedule.level(some).alpha.square()
    beta = 1 - abar[1:] / abar[:-1]
    whole = (1 - schedule.level(ALL).sigma.square())[(some[1:] * T).round().long() - 1]
    assert torch.allclose((1 - beta).cumprod(0), whole, rtol=1e-9, atol=0)


def test_continuous_times_are_all_there_and_in_fp64():
    u = torch.rand(9, generator=torch.Generator().manual_seed(0))
    schedule = Schedule("cosine")
    assert schedule.steps == 0
    for t in (schedule.snap(u), schedule.training_time(u)):
        assert torch.equal(t, u.double()) and t.dtype == torch.float64


@pytest.mark.parametrize("steps", [7, T])
def test_snapped_times_are_the_tables(steps):
    schedule, u = Schedule("linear", steps=steps), torch.linspace(0, 1, 301)
    offered = torch.arange(steps + 1).double() / steps
    assert schedule.steps == steps
    for t in (schedule.snap(u), schedule.training_time(u), schedule.time(u)):
        assert t.dtype == torch.float64 and torch.isin(t, offered).all()
    assert schedule.snap(times([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("sigma_min", [0.0, 0.3, 0.5, 0.71])
def test_clipping_also_holds_in_discrete_steps(curve, sigma_min):
    schedule = Schedule(curve, "clip", steps=50)
    schedule.modifier.sigma_min.fill_(sigma_min)
    u = (torch.arange(1000).double() + 0.5) / 1000
    trained = schedule.level(schedule.training_time(u)).sigma
    assert trained.min() >= sigma_min
    allowed = schedule.curve.table[1:][schedule.curve.table[1:] >= sigma_min]
    assert len(allowed) - len(trained.unique()) in (0, 1)  # the index nearest to sigma_min may be left out


@pytest.mark.parametrize("steps", [0, 30])
def test_the_table_is_in_the_checkpoint_and_keeps_its_digits_in_half_precision(steps):
    schedule = Schedule("cosine", "factor", 2.0, steps)
    exact = schedule.level(times([0.31])).sigma.item()
    state = schedule.half().bfloat16().state_dict()
    assert set(state) == ({"curve.table"} if steps else set())
    fresh = Schedule("sqrt", "factor", 2.0, steps) if steps else Schedule("cosine", "factor", 2.0)
    fresh.load_state_dict(state)
    assert fresh.level(times([0.31])).sigma.item() == schedule.level(times([0.31])).sigma.item() == exact


@pytest.mark.parametrize("modifier", MODIFIERS)
def test_impossible_factors_and_steps(modifier):
    with pytest.raises(UserError, match="noise factor is 0"):
        Schedule("cosine", modifier, 0.0)
    with pytest.raises(UserError, match="-3 steps.*0 for continuous"):
        Schedule("cosine", modifier, steps=-3)
