"""What sentences cost, as one number: beside what objectives already test of it."""

import pytest
import torch

from fairseq_diffusion.objective.reduction import NORMALISERS, Reduction

MASK = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]]).bool()


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_one_value_a_sentence_is_that_value_at_each_token(normaliser):
    values, reduction = torch.tensor([0.5, 2.0, 7.0]), Reduction(normaliser)
    spread = values[:, None].expand(MASK.shape)
    assert torch.equal(reduction.share(values, MASK), reduction.share(spread, MASK))


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_shares_are_the_same_however_a_batch_is_cut_or_padded(normaliser):
    """So are their sum and the sum of sample sizes, which gradient accumulation and ranks divide by."""
    values, reduction = torch.rand(3, 4), Reduction(normaliser)
    together = reduction.share(values, MASK)
    alone = torch.cat([reduction.share(values[i : i + 1], MASK[i : i + 1]) for i in range(3)])
    wider = reduction.share(torch.cat([values, values], 1), torch.cat([MASK, MASK & False], 1))
    assert torch.allclose(alone, together) and torch.allclose(wider, together)
    assert sum(int(reduction.sample_size(MASK[i : i + 1])) for i in range(3)) == int(reduction.sample_size(MASK))


def test_sample_sizes():
    assert [int(Reduction(name).sample_size(MASK)) for name in ("sentences", "tokens")] == [3, 7]


@pytest.mark.parametrize("garbage", [torch.inf, torch.nan])
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_garbage_where_nothing_is_due_is_not_read(normaliser, garbage):
    values = torch.where(MASK, 1.0, garbage).requires_grad_()
    Reduction(normaliser).share(values, MASK).sum().backward()
    assert torch.equal(values.grad != 0, MASK)
    assert values.grad.isfinite().all()


def test_the_default_weighs_sentences_alike():
    assert Reduction().normaliser == "sentences"
