"""The table of T steps against a product written out, and the times it offers."""

import math

import pytest
import torch

from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import times
from fairseq_diffusion.process.time_table import DiscreteCurve, betas

T = 2000


@pytest.fixture(scope="module")
def table():
    return DiscreteCurve(CURVES["sqrt_offset"], T)


def products():
    """beta_i and abar_i of Diffusion-LM's square root, abar(s) = 1 - sqrt(s + 1e-4), one after the other."""
    abar, beta, product, kept = lambda s: max(0.0, 1 - math.sqrt(s + 1e-4)), [], [], 1.0
    for i in range(T):
        beta.append(min(1 - abar((i + 1) / T) / abar(i / T), 0.999))
        kept *= 1 - beta[-1]
        product.append(kept)
    return beta, product


def test_table_is_the_running_product(table):
    beta, product = products()
    assert betas(CURVES["sqrt_offset"], T).tolist() == pytest.approx(beta, rel=1e-9)
    alpha_2 = 1 - table.table.square()
    assert alpha_2[0] == 1 and len(alpha_2) == T + 1
    assert alpha_2[1:].tolist() == pytest.approx(product, rel=1e-11, abs=1e-15)


def test_known_values_of_the_square_root(table):
    abar = 1 - table.table[1:].square()
    assert abar[0].item() == pytest.approx(0.98536, abs=5e-6)
    assert abar[1998].item() == pytest.approx(2.02e-4, abs=5e-7)
    assert betas(CURVES["sqrt_offset"], T)[1999].item() == 0.999


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("steps", [1, 7, 2000, 20000])
def test_every_curve_has_a_finite_increasing_table(name, steps):
    sigma = DiscreteCurve(CURVES[name], steps).table
    assert sigma.dtype == torch.float64 and sigma[0] == 0 and sigma[-1] <= 1
    assert (sigma.diff() > 0).all()


@pytest.mark.parametrize("name", CURVES)
def test_table_tends_to_the_curve_as_steps_grow(name):
    """...relative to the curve's own alpha(0): time 0 is clean data, also where the curve starts with noise."""
    t, curve = times([0.0, 0.2, 0.5, 0.8, 1.0]), CURVES[name]
    start = curve.sigma(times(0.0))
    limit = ((curve.sigma(t).square() - start.square()) / (1 - start.square())).sqrt()
    errors = [(DiscreteCurve(curve, steps).sigma(t) - limit).abs().max().item() for steps in (10, 100, 1000, 10000)]
    assert errors[-1] < 1e-6
    assert all(later <= earlier + 1e-12 for earlier, later in zip(errors, errors[1:]))


def test_between_two_indices_the_nearest_counts(table):
    t = times([[0.0, 0.4], [0.6, 1.4], [1999.4, 2000]]) / T
    nearest = torch.tensor([[0, 0], [1, 1], [1999, 2000]])
    assert torch.equal(table.sigma(t), table.table[nearest])
    assert torch.equal(table.snap(t), nearest.double() / T)


def test_time_is_the_nearest_index_in_sigma(table):
    sigma = torch.rand(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    brute = (table.table - sigma[..., None]).abs().argmin(-1)
    assert torch.equal(table.time(sigma), brute.double() / T)
    indices = torch.arange(T + 1)
    assert torch.equal(table.time(table.table), indices.double() / T)
    assert table.time(times(0.3)).shape == ()


@pytest.mark.parametrize("steps", [1, 3, 7, 49, 2000])
def test_each_index_is_trained_on_equally_often(steps):
    curve = DiscreteCurve(CURVES["sigma_t"], steps)
    u = (torch.arange(5 * steps).double() + 0.5) / (5 * steps)
    index = curve.snap_up(u) * steps
    assert torch.equal(index.round().long().bincount(minlength=steps + 1), torch.tensor([0] + [5] * steps))
    assert torch.equal(curve.snap(curve.snap_up(u)), curve.snap_up(u))
    assert curve.snap_up(times([0.0, 1.0])).tolist() == [1 / steps, 1]
