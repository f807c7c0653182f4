"""A student's target: one of its steps lands where two of its teacher's do."""

import math
from dataclasses import dataclass, field
from typing import Callable

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.halving import Halving
from fairseq_diffusion.samplers.loop import SAMPLERS, sample
from fairseq_diffusion.states.embedding import EmbeddingState

SCHEDULES = [  # curve, modifier, factor trained with, discrete steps; noise factor of decoding
    (("sigma_t", "clip", 1.0, 0), None),
    (("cosine", "none", 1.0, 0), None),
    (("sqrt_offset", "factor", 4.0, 2000), 1.0),
    (("sqrt_offset", "factor", 4.0, 2000), None),
    (("sqrt_offset", "factor_vp", 4.0, 50), 2.0),
]


def muddled(x_t, t, c):
    """A teacher that is no good: some function of all its arguments, t [B]."""
    return torch.tanh(x_t.flip(-1) + 0.3 * c) * (1 + t.view(-1, 1, 1)).to(x_t)


def forgetful(x_t, t, c):
    """One without self-conditioning."""
    return muddled(x_t, t, 0 * c)


def ddim(x, estimate, now, next_):
    """a' X + (s'/s) (x - a X) for levels (a, s) and (a', s')."""
    return next_[0] * estimate + next_[1] / now[1] * (x - now[0] * estimate)


def levels(schedule, times, factor):
    level = schedule.level(times, factor)
    return list(zip(level.alpha.tolist(), level.sigma.tolist()))


@pytest.mark.parametrize("parts, factor", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_step_lands_where_two_do(parts, factor, steps):
    """In fp64, by the formulas as papers write them; the last step leads to clean data."""
    schedule = Schedule(*parts)
    halving, grid_t = Halving(schedule, steps, factor), make_grid(schedule, 2 * steps).t
    marks = [*levels(schedule, grid_t[:-1], factor), (1.0, 0.0)]
    for i in range(steps):
        x_t = torch.randn(1, 3, 4).double()
        t, middle = grid_t[2 * i : 2 * i + 2].view(2, 1)
        now, between, behind = marks[2 * i : 2 * i + 3]
        nothing = torch.zeros_like(x_t)
        first = muddled(x_t, t, muddled(x_t, t, nothing) if i else nothing)
        x_1 = ddim(x_t, first, now, between)
        x_2 = ddim(x_1, muddled(x_1, middle, first), between, behind)
        pair = halving.draw(torch.tensor([(i + 0.5) / steps], dtype=torch.float64))
        target = pair.target(muddled, x_t, conditioned=True)
        torch.testing.assert_close(ddim(x_t, target, now, behind), x_2, rtol=1e-12, atol=1e-12)
        formula = (x_2 - behind[1] / now[1] * x_t) / (behind[0] - behind[1] / now[1] * now[0])
        torch.testing.assert_close(target, formula, rtol=1e-10, atol=1e-10)
        assert pair.t == t and pair.middle == middle
        assert (pair.level.alpha.item(), pair.level.sigma.item()) == now


@dataclass
class Toy:
    """Two sentences with three candidates each, whose network sees them as six rows."""

    network: Callable
    keys: torch.Tensor = field(default_factory=lambda: noise.fold(torch.arange(2)[:, None], 0, torch.arange(3))[None])
    mask: torch.Tensor = field(default_factory=lambda: torch.ones(2, 3, 3).bool())
    state: EmbeddingState = field(default_factory=lambda: EmbeddingState(5, 4))

    def settle(self, estimate):
        return estimate

    def denoise(self, x_t, t, c):
        return self.network(x_t.flatten(0, 1), t.expand(6), c.flatten(0, 1)).view(x_t.shape)


def decoded(schedule, steps, factor, network):
    grid = make_grid(schedule, steps, factor=factor)
    return sample(Toy(network), grid, SAMPLERS["ddim"].steps(grid)).estimate


@pytest.mark.parametrize("parts, factor", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_a_perfect_student_decodes_as_its_teacher_in_half_the_steps(parts, factor, steps):
    """By the sampler itself: N steps whose estimates are the targets end where the teacher's 2N end."""
    schedule = Schedule(*parts)
    halving, calls = Halving(schedule, steps, factor), iter(range(steps))

    def student(x_t, t, c):
        pair = halving.draw(torch.full((6,), (next(calls) + 0.5) / steps))
        torch.testing.assert_close(pair.t.float(), t)  # the student is conditioned on the true time
        return pair.target(forgetful, x_t, conditioned=False)

    teachers = decoded(schedule, 2 * steps, factor, forgetful)
    torch.testing.assert_close(decoded(schedule, steps, factor, student), teachers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts, factor", SCHEDULES)
def test_one_step_of_a_student_is_two_with_self_conditioning(parts, factor):
    """The first of both sees no estimate, and the second the first's: nothing is approximate."""
    schedule = Schedule(*parts)
    pair = Halving(schedule, 1, factor).draw(torch.rand(6))
    for conditioned in (True, False):
        student = lambda x_t, t, c: pair.target(muddled, x_t, conditioned)  # noqa: B023, E731
        both = decoded(schedule, 1, factor, student), decoded(schedule, 2, factor, muddled)
        torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)


def test_a_network_that_says_v_is_taught_what_it_should_say():
    """Its v for x_t, turned into an estimate, is the target: alpha x_t - sigma v = X*."""
    schedule, x_t = Schedule("cosine"), torch.randn(4, 3, 2)

    def teacher(x, t, c):
        return PREDICTIONS["v"](muddled(x, t, c), x, schedule.level(t[:, None]))

    pair = Halving(schedule, 4).draw(torch.linspace(0.1, 0.9, 4))
    target = pair.target(teacher, x_t, conditioned=True)
    level = pair.level.to(x_t)
    v = (level.alpha[..., None] * x_t - target) / level.sigma[..., None]
    torch.testing.assert_close(PREDICTIONS["v"](v, x_t, pair.level), target)


def test_the_noise_factor_is_that_of_decoding_and_does_not_move_the_target():
    schedule, u = Schedule("sqrt_offset", "factor", 4.0, 2000), torch.linspace(0.05, 0.95, 10)
    one, two = (Halving(schedule, 10, factor).draw(u) for factor in (1.0, 3.0))
    torch.testing.assert_close(one.w, two.w, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(3 * one.level.sigma, two.level.sigma)
    assert torch.equal(one.level.alpha, two.level.alpha)
    own = Halving(schedule, 10).draw(u)
    torch.testing.assert_close(4 * one.level.sigma, own.level.sigma)


def test_each_step_is_drawn_equally_often_and_the_first_has_no_condition():
    halving = Halving(Schedule(), 4)
    pair = halving.draw((torch.arange(1000) + 0.5) / 1000)
    times, counts = pair.t.unique(return_counts=True)
    torch.testing.assert_close(times.flip(0), make_grid(Schedule(), 4).t[:-1])
    assert counts.tolist() == [250] * 4
    c = torch.ones(1000, 2, 3)
    assert torch.equal(pair.condition(c)[:, 0, 0], (pair.t < 1).float())
    assert halving.draw(torch.tensor([math.nextafter(1.0, 0.0)], dtype=torch.float64)).t == times[0]


@pytest.mark.parametrize(
    "discrete, steps, words",
    [
        (0, 0, "--student-steps is 0; a student takes 1 step"),
        (0, -2, "--student-steps is -2"),
        (8, 5, "--student-steps 5 needs a teacher of 10 steps, for which the model's 8 diffusion steps have no room"),
    ],
)
def test_refused(discrete, steps, words):
    with pytest.raises(UserError, match=words):
        Halving(Schedule("cosine", steps=discrete), steps)


def test_all_of_a_models_steps_are_room_for_half_of_them():
    assert Halving(Schedule("cosine", steps=8), 4).draw(torch.tensor([0.9])).middle == 1 / 8
