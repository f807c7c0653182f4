"""Identities that every registered schedule keeps."""

import math

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule

t = times(torch.linspace(0, 1, 1001))

# sigma(0) and sigma(1), from each curve's formula by hand
ENDS = {
    "sigma_t": (0, 1),
    "sqrt": (0, 1),
    "sqrt_offset": (0, 1),
    "log_linear": (0, 1),
    "geometric": (1e-3, 1),
    "linear": (0, math.sqrt(1 - math.exp(-10.05))),
    "quadratic": (0, math.sqrt(1 - math.exp(-(0.1 + math.sqrt(0.1 * 20) + 20) / 3))),
    "cosine": (0, 1),
    "cosine_root": (0, 1),
    "geometric_decay": (math.sqrt(-math.expm1(-1e-4)), math.sqrt(-math.expm1(-20.0))),
    "shifted_cosine": (0, 1),
    "variance_exploding": (math.sqrt(1 / 2), 300 / math.sqrt(1 + 300**2)),
    "edm": (0.002 / math.sqrt(1 + 0.002**2), 80 / math.sqrt(1 + 80**2)),
    "log_snr": (1 / math.sqrt(1 + math.exp(3)), 1 / math.sqrt(1 + math.exp(-6))),
    "edm_wide": (math.sqrt(1 / 2), 300 / math.sqrt(1 + 300**2)),
}

# where sigma(1) is reached first, if before t = 1
FULL = {"sqrt_offset": 1 - 1e-4}


def test_every_curve_has_its_ends_stated():
    assert set(ENDS) == set(CURVES)


@pytest.mark.parametrize("name", CURVES)
def test_ends(name):
    sigma = CURVES[name].sigma(times([0.0, 1.0]))
    assert sigma.tolist() == pytest.approx(ENDS[name], abs=1e-12)


@pytest.mark.parametrize("name", CURVES)
def test_variance_is_preserved(name):
    level = Schedule(name).level(t)
    assert torch.allclose(level.alpha**2 + level.sigma**2, torch.ones_like(t), atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", CURVES)
def test_noise_grows_with_time(name):
    assert (CURVES[name].sigma(t).diff() > 0).all()


@pytest.mark.parametrize("name", CURVES)
def test_inverse_of_forward_is_the_identity(name):
    schedule = Schedule(name)
    inner = t[1:-1]  # at the ends alpha or sigma is 0 and the inverse loses half of its digits
    assert torch.allclose(schedule.time(schedule.level(inner).sigma), inner, atol=1e-9, rtol=0)
    ends = schedule.time(schedule.level(t[[0, -1]]).sigma)
    assert torch.allclose(ends, times([0, FULL.get(name, 1)]), atol=1e-6, rtol=0)


def test_dinoisers_sqrt_reaches_099_at_09606():
    assert Schedule("sqrt").time(times(0.99)).item() == pytest.approx(0.9606, abs=5e-5)


@pytest.mark.parametrize("s", [1e-9, 0.01, 0.3, 0.9, 0.9999])
def test_sqrt_with_offset_is_diffusion_lms_relative_to_its_start(s):
    d = 1e-4
    sigma_2 = (math.sqrt(s + d) - math.sqrt(d)) / (1 - math.sqrt(d))
    assert Schedule("sqrt_offset").level(times([s])).sigma.item() ** 2 == pytest.approx(sigma_2, rel=1e-6)
    alpha_2 = (1 - math.sqrt(s + d)) / (1 - math.sqrt(d))
    assert Schedule("sqrt_offset").level(times([s])).alpha.item() ** 2 == pytest.approx(alpha_2, rel=1e-9, abs=1e-12)


def test_sqrt_with_offset_stays_all_noise_to_the_end():
    level = Schedule("sqrt_offset").level(times([0.99991, 0.99999, 1]))
    assert level.sigma.tolist() == [1, 1, 1] and level.alpha.tolist() == [0, 0, 0]


def test_linear_is_the_integral_of_its_beta():
    schedule, n = Schedule("linear"), 200_000
    s = (times(torch.arange(n)) + 0.5) / n * 0.7
    decay = (0.1 + 19.9 * s).sum() * 0.7 / n
    assert schedule.level(times([0.7])).alpha.square().log().item() == pytest.approx(-decay.item(), rel=1e-8)


def test_cosine_is_ddpm_improved():
    f = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    assert Schedule("cosine").level(times([0.3])).alpha.item() ** 2 == pytest.approx(f(0.3) / f(0), rel=1e-12)


def test_shifted_cosine_shifts_log_snr():
    level = Schedule("shifted_cosine").level(times([0.5]))
    assert level.alpha.item() ** 2 == pytest.approx(0.01 / 1.01, rel=1e-12)


def test_variance_exploding_is_its_rescaled_self():
    level = Schedule("variance_exploding").level(times([0.25]))
    assert (level.sigma / level.alpha).item() == pytest.approx(300**0.25, rel=1e-9)


@pytest.mark.parametrize("name, low, high", [("edm", 0.002, 80), ("edm_wide", 1, 300)])
def test_edm_is_even_in_the_seventh_root_of_its_noise(name, low, high):
    level = Schedule(name).level(times([0, 0.5, 1]))
    middle = ((low ** (1 / 7) + high ** (1 / 7)) / 2) ** 7
    assert (level.sigma / level.alpha).tolist() == pytest.approx([low, middle, high], rel=1e-9)


def test_unknown_schedule_lists_the_choices():
    with pytest.raises(UserError, match="unknown schedule 'cosin'.*cosine.*sigma_t"):
        Schedule("cosin")


@pytest.mark.parametrize("roundings", [0, 1, 2])
def test_pure_noise_has_no_signal_however_it_is_rounded(roundings):
    """1 - 2^-53 is the number before 1 in fp64."""
    level = Level.variance_preserving(times([1 - roundings * 2.0**-53]))
    assert level.alpha == 0 and level.half_log_snr == -torch.inf
    assert Level.variance_preserving(times([1 - 2.0**-40])).alpha > 0
