"""The times of the sample, and those that the network is conditioned on."""

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import times
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.grid import GRIDS, LOWEST, make_grid


def differences(values):
    return values.diff().abs()


@pytest.mark.parametrize("spacing", GRIDS)
@pytest.mark.parametrize("schedule", [*((curve, 0) for curve in CURVES), ("sqrt_offset", 2000), ("cosine", 1000)])
@pytest.mark.parametrize("taken", [1, 2, 20])
def test_every_grid_goes_down_from_one(schedule, spacing, taken):
    curve, steps = schedule
    grid = make_grid(Schedule(curve, steps=steps), taken, spacing=spacing)
    assert grid.steps == taken
    assert grid.t[0] == 1 and grid.t.dtype == torch.float64
    assert (grid.t.diff() < 0).all() and (grid.level.sigma.diff() < 0).all()


def test_time_is_even():
    assert torch.allclose(make_grid(Schedule(), 20).t, torch.linspace(1, 1e-3, 21).double())
    assert make_grid(Schedule(), 20, final_time=0.2).t[-1] == pytest.approx(0.2)


@pytest.mark.parametrize("curve", CURVES)
def test_sigma_is_even(curve):
    sigma = make_grid(Schedule(curve), 10, spacing="sigma").level.sigma
    assert torch.allclose(differences(sigma), differences(sigma).mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("curve", CURVES)
def test_log_snr_is_even(curve):
    half = make_grid(Schedule(curve), 10, spacing="log_snr").level.half_log_snr.clamp(min=LOWEST)
    assert torch.allclose(differences(half), differences(half).mean(), rtol=1e-4)


def test_cosine_hides_as_many_as_it_says():
    """Of words hidden at a log-linear rate, the share cos(pi i / 2N)."""
    grid = make_grid(Schedule("log_linear"), 6, 1e-9, spacing="cosine")
    expected = torch.cos(torch.pi / 2 * torch.arange(7).double() / 6)
    torch.testing.assert_close(grid.level.sigma.square(), expected, rtol=0, atol=1e-8)


def test_respaced_steps_are_twenty_of_the_models_own():
    grid = make_grid(Schedule("sqrt_offset", "factor", 4.0, steps=2000), 20, spacing="respaced")
    index = (2000 * grid.t[:-1]).round().long().flip(0) - 1
    assert index.tolist()[:6] == [0, 105, 210, 316, 421, 526] and index.tolist()[-2:] == [1894, 1999]
    assert grid.t[-1] == 0 and grid.level.sigma[-1] == 0


def test_steps_are_even_in_what_training_draws_evenly():
    """From time 1, or where a draft begins, to the final time, which alone may be below the times trained on."""
    schedule = Schedule("sigma_t", "warp")
    t = torch.linspace(0, 1, 1001).double()
    schedule.modifier.observe(t, t**3, None, t[:, None] >= 0)
    schedule.update(torch.zeros(3, 2))
    for first in (1.0, 0.6):
        grid = make_grid(schedule, 8, spacing="training", first_time=first)
        assert grid.t[0] == first and grid.t[-1] == 1e-3
        loss = grid.t**3
        assert torch.allclose(differences(loss), differences(loss).mean(), atol=0.02 * first**3)
    clipped = Schedule("sigma_t", "clip")
    clipped.modifier.sigma_min.fill_(0.4)
    t = make_grid(clipped, 6, spacing="training").t
    torch.testing.assert_close(t[:-1], 1 - 0.1 * torch.arange(6).double())
    assert t[-1] == 1e-3
    torch.testing.assert_close(
        make_grid(Schedule(), 5, spacing="training").t[1:-1], make_grid(Schedule(), 5, 1e-9).t[1:-1], atol=1e-3, rtol=0
    )


def test_positions_that_have_levels_of_their_own_have_them_in_the_grid():
    schedule = Schedule("cosine", "position", steps=2000)
    t = torch.arange(1, 2001).double() / 2000
    error = t[:, None] ** (1 + torch.arange(64) / 30)
    schedule.modifier.observe(t, t, error, torch.ones(2000, 64).bool())
    for _ in range(4):
        schedule.update(torch.zeros(3, 2))
    level = make_grid(schedule, 5).level
    assert level.alpha.shape == level.sigma.shape == (6, 64) and not torch.equal(level.alpha[:, 1], level.alpha[:, 60])
    torch.testing.assert_close(level.sigma[:, 0], make_grid(Schedule("cosine", steps=2000), 5).level.sigma)
    torch.testing.assert_close(level.alpha[3].square() + level.sigma[3].square(), torch.ones(64).double())


def test_early_stop_leaves_out_the_last_steps():
    schedule = Schedule("sqrt_offset", steps=2000)
    every, stopped = (make_grid(schedule, 20, spacing="respaced", early_stop=stop) for stop in (0, 5))
    assert stopped.steps == 15
    assert torch.equal(stopped.t, every.t[:16])
    assert 2000 * stopped.t[14] - 1 == pytest.approx(526)


@pytest.mark.parametrize("taken", [1, 2, 7, 100, 2000])
def test_a_table_is_respaced_to_any_number_of_steps(taken):
    grid = make_grid(Schedule("sqrt_offset", steps=2000), taken, spacing="respaced")
    assert grid.steps == taken and len(grid.t.unique()) == taken + 1
    if taken == 2000:
        assert torch.allclose(grid.t.flip(0), torch.arange(2001).double() / 2000)


def test_a_table_ends_where_it_ends():
    with pytest.raises(UserError, match="--final-time has no meaning on the grid respaced"):
        make_grid(Schedule("sqrt_offset", steps=2000), 20, final_time=0.1, spacing="respaced")
    assert make_grid(Schedule(), 20, final_time=0.1, spacing="respaced").t[-2] == 0.1


def test_more_steps_than_the_table_has():
    with pytest.raises(UserError, match="21 steps are more than the model's 20"):
        make_grid(Schedule("sqrt_offset", steps=20), 21, spacing="respaced")


def test_conditioning_is_between_noise_levels_whatever_the_schedule():
    grid = make_grid(Schedule("sqrt"), 20, conditioning=(1.0, 0.99))
    assert grid.conditioning_t[-1].item() == pytest.approx(0.9606, abs=5e-5)
    assert grid.conditioning_level.sigma[-1].item() == pytest.approx(0.99, abs=1e-6)


def test_a_decode_factor_changes_levels_and_not_times():
    schedule = Schedule("sigma_t", "factor", 4.0)
    one, four = (make_grid(schedule, 5, factor=factor) for factor in (1.0, None))
    assert torch.equal(one.t, four.t) and torch.equal(4 * one.level.sigma, four.level.sigma)
    assert torch.equal(one.level.sigma, schedule.curve.sigma(times(one.t)))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"steps": 0}, "0 decoding steps"),
        ({"steps": 5, "final_time": 0.0}, "--final-time"),
        ({"steps": 5, "final_time": 1.0}, "--final-time"),
        ({"steps": 5, "conditioning": (0.9, 0.95)}, "0 < end <= start"),
        ({"steps": 5, "conditioning": (1.0, 0.0)}, "0 < end <= start"),
        ({"steps": 5, "spacing": "quadratic"}, "choose one of: cosine, log_snr, respaced, sigma, time"),
    ],
)
def test_senseless_grids(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        make_grid(Schedule(), **arguments)
