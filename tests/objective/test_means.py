"""What is logged of a diffusion model, by hand."""

import torch

from fairseq_diffusion.objective.reduction import error_by_noise
from fairseq_diffusion.process.level import Level

ERROR = torch.tensor([1.0, 2.0, 4.0, 8.0])


def seen(level):
    """Total and number of the bands that have sentences."""
    found = error_by_noise(level, ERROR)
    assert list(found) == [f"mse_noise_{10 * i:02d}" for i in range(10)]
    return {name: (mean.total.item(), mean.number.item()) for name, mean in found.items() if mean.number > 0}


def test_errors_are_in_bands_of_noise():
    sigma = torch.tensor([[0.0], [0.05], [0.31], [1.0]])
    expected = {"mse_noise_00": (3, 2), "mse_noise_30": (4, 1), "mse_noise_90": (8, 1)}
    assert seen(Level.variance_preserving(sigma)) == expected


def test_a_factor_on_the_whole_state_changes_no_band():
    level = Level.variance_preserving(torch.tensor([[0.0], [0.05], [0.31], [1.0]]))
    assert seen(Level(3 * level.alpha, 3 * level.sigma)) == seen(level)


def test_a_sentence_whose_positions_differ_is_in_the_band_of_their_mean():
    sigma = torch.tensor([[0.1, 0.3], [0.1, 0.12], [0.8, 0.9], [0.0, 0.9]])
    expected = {"mse_noise_10": (2, 1), "mse_noise_20": (1, 1), "mse_noise_40": (8, 1), "mse_noise_80": (4, 1)}
    assert seen(Level.variance_preserving(sigma)) == expected
