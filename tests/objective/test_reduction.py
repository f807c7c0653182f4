"""What sentences cost, as one number: beside what objectives already test of it."""

import pytest
import torch

from fairseq_diffusion.objective.reduction import NORMALISERS, Reduction

MASK = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]]).bool()


@pytest.mark.parametrize("normaliser", ["sentences", "tokens"])
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
    assert [int(Reduction(name).sample_size(MASK)) for name in ("sentences", "tokens", "words")] == [3, 7, 7]


def test_with_words_each_loss_is_a_mean_over_what_it_is_of():
    """Lengths over sentences, words over all in the batch that have a loss, however many each sentence has."""
    reduction, values = Reduction("words"), torch.tensor([0.5, 2.0, 7.0])
    assert reduction.share(values, MASK).sum() / reduction.sample_size(MASK) == pytest.approx(9.5 / 3)
    nll, count = torch.tensor([6.0, 1.0, 4.0]), torch.tensor([4, 1, 1])
    found = reduction.share_of_words(nll, count, MASK)
    assert found.sum() / reduction.sample_size(MASK) == pytest.approx(11 / 6)
    for other, expected in (("sentences", 1.5 + 1 + 4), ("tokens", 4 * 1.5 + 1 + 2 * 4)):
        assert Reduction(other).share_of_words(nll, count, MASK).sum() == pytest.approx(expected)


@pytest.mark.parametrize("garbage", [torch.inf, torch.nan])
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_garbage_where_nothing_is_due_is_not_read(normaliser, garbage):
    values = torch.where(MASK, 1.0, garbage).requires_grad_()
    Reduction(normaliser).share(values, MASK).sum().backward()
    assert torch.equal(values.grad != 0, MASK)
    assert values.grad.isfinite().all()


def test_the_default_weighs_sentences_alike():
    assert Reduction().normaliser == "sentences"
