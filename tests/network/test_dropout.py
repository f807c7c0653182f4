"""Dropout: as often as asked for, with the mean kept, the same for a seed, and off where it should be."""

import pytest
import torch

from fairseq_diffusion.network.dropout import Dropout

SHAPE = (301, 7, 33)  # no multiple of four


def dropped(p, seed=0, x=None):
    torch.manual_seed(seed)
    return Dropout(p)(torch.ones(SHAPE) if x is None else x)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_drops_as_often_as_asked_and_keeps_the_mean(p):
    x = dropped(p)
    n = x.numel()
    assert abs(float((x == 0).float().mean()) - p) < 4 * (p * (1 - p) / n) ** 0.5
    torch.testing.assert_close(x[x != 0], torch.full_like(x[x != 0], 1 / (1 - p)), rtol=1e-3, atol=0)


def test_each_entry_is_dropped_on_its_own():
    """Also of the four that one number decides on: the pairs at each distance agree as often as chance has it."""
    kept = (dropped(0.5) != 0).flatten()
    for distance in (1, 2, 3, 4, 33):
        agree = (kept[distance:] == kept[:-distance]).float().mean()
        assert abs(float(agree) - 0.5) < 4 * 0.5 / len(kept) ** 0.5


def test_the_gradient_goes_through_what_was_kept():
    x = torch.randn(SHAPE, requires_grad=True)
    y = dropped(0.3, x=x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x * gradient)
    assert set((gradient == 0).unique().tolist()) == {False, True}


def test_torchs_seed_sets_it():
    torch.testing.assert_close(dropped(0.5), dropped(0.5))
    assert not torch.equal(dropped(0.5), dropped(0.5, seed=1))


def test_an_input_that_is_a_view_and_half_precision():
    x = torch.ones(64, 128, dtype=torch.bfloat16).t()
    y = dropped(0.25, x=x)
    assert y.dtype == x.dtype and y.shape == x.shape
    assert 0.2 < float((y == 0).float().mean()) < 0.3


@pytest.mark.parametrize("p, training", [(0.0, True), (0.5, False)])
def test_changes_nothing_without_probability_or_training(p, training):
    x = torch.randn(SHAPE)
    assert torch.equal(Dropout(p).train(training)(x), x)


def test_drops_everything_at_one():
    assert not dropped(1.0).any()
