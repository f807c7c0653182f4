"""Words are drawn from the most probable ones alone, if asked, and from those as before."""

import pytest
import torch

from fairseq_diffusion.kernels.rounding import Truncation, best_rows

P = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])


@pytest.mark.parametrize(
    "k, p, kept",
    [(0, 1.0, [0, 1, 2, 3, 4]), (2, 1.0, [1, 3]), (0, 0.65, [1, 3]), (0, 0.66, [1, 3, 4]), (0, 1e-9, [1])]
    + [(3, 0.7, [1, 3]), (9, 1.0, [0, 1, 2, 3, 4])],
)
def test_what_may_be_drawn(k, p, kept):
    """The likeliest until their probabilities reach p, those of the k likeliest counting as all there are."""
    logits = torch.stack([P.log() + 3, P.log() - 2])
    left = Truncation(k, p)(logits)
    assert torch.equal(left.isfinite(), torch.isin(torch.arange(5), torch.tensor(kept)).expand(2, 5))
    assert torch.equal(left[left.isfinite()], logits[left.isfinite()])


@pytest.mark.parametrize("truncation", [Truncation(), Truncation(k=3), Truncation(p=0.7)])
@pytest.mark.parametrize("banned", [None, torch.tensor([1])])
def test_frequencies(truncation, banned):
    """Of what is left, as it was; a banned word is never drawn, and does not count among the likeliest."""
    count = 20000
    x, table = torch.ones(count, 1), P.log()[:, None]
    words = best_rows(x, table, banned, keys=torch.arange(count), truncation=truncation)
    found = torch.bincount(words, minlength=5) / count
    left = P if banned is None else P.index_fill(0, banned, 0.0)
    expected = truncation(left.log()[None])[0].softmax(-1)
    assert (found - expected).abs().max() < 4 * (0.25 / count) ** 0.5
    assert torch.equal(found > 0, expected > 0)
