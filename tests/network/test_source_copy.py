"""What is copied is counted over real tokens: the same under any padding, in any batch."""

import math

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.source_copy import COPIES

SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (5, 5), (3, 8), (8, 3), (7, 4), (4, 7), (5, 3), (2, 8)]  # m, n
SOURCES = [torch.randn(m, 4, generator=torch.Generator().manual_seed(i)) for i, (m, _) in enumerate(SIZES)]
LOG_TAU = 0.4


def copier(kind):
    copy = COPIES[kind]()
    if kind == "soft":
        torch.nn.init.constant_(copy.log_tau, LOG_TAU)
    return copy


def uniform(words, n):
    """Word floor(j (m - 1) / (n - 1) + 1/2) at place j."""
    m = len(words)
    return torch.stack([words[(2 * j * (m - 1) + n - 1) // (2 * (n - 1)) if n > 1 else 0] for j in range(n)])


def soft(words, n):
    rows = []
    for j in range(n):
        place = j * (len(words) - 1) / (n - 1) if n > 1 else 0
        weight = [math.exp(-abs(place - i) / math.exp(LOG_TAU)) for i in range(len(words))]
        rows.append(sum(w * word for w, word in zip(weight, words.double())) / sum(weight))
    return torch.stack(rows).float()


REFERENCES = {"uniform": uniform, "soft": soft}
KINDS = pytest.mark.parametrize("kind", REFERENCES)


def padded(count, width, left):
    """A mask of `count` real tokens [width]."""
    place = torch.arange(width)
    return place >= width - count if left else place < count


def batch(left_source=False, left_canvas=False, more=0, rows=None):
    """Sources [B, S, 4] with garbage in the padding, their masks, and those of canvases [B, L]."""
    rows = range(len(SIZES)) if rows is None else rows
    widths = [max(sizes) + more for sizes in zip(*(SIZES[i] for i in rows))]
    source = torch.stack([padded(SIZES[i][0], widths[0], left_source) for i in rows])
    canvas = torch.stack([padded(SIZES[i][1], widths[1], left_canvas) for i in rows])
    words = torch.full((*source.shape, 4), 1e3)
    words[source] = torch.cat([SOURCES[i] for i in rows])
    return words, source, canvas


@KINDS
def test_each_sentence_is_its_reference(kind):
    words, source, canvas = batch()
    found = copier(kind)(words, source, canvas)
    for row, mask, own, (_, n) in zip(found, canvas, SOURCES, SIZES):
        assert torch.allclose(row[mask], REFERENCES[kind](own, n), atol=1e-5)


def test_half_is_rounded_up():
    """5 words, 3 places: 0, 2, 4; 4 words, 3 places: 0, 1.5, 3."""
    words = torch.arange(5.0)[None, :, None]
    for m, expected in ((5, [0, 2, 4]), (4, [0, 2, 3]), (2, [0, 1, 1])):
        mask = torch.arange(5)[None] < m
        assert copier("uniform")(words, mask, torch.ones(1, 3).bool())[0, :, 0].tolist() == expected


@KINDS
@pytest.mark.parametrize("left_source", [False, True])
@pytest.mark.parametrize("left_canvas", [False, True])
@pytest.mark.parametrize("more", [0, 3])
def test_padding_leaves_no_trace(kind, left_source, left_canvas, more):
    def real(*arguments):
        words, source, canvas = batch(*arguments)
        return copier(kind)(words, source, canvas)[canvas]

    found, expected = real(left_source, left_canvas, more), real()
    if kind == "uniform":
        assert torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=1e-6)


@KINDS
def test_nor_does_the_batch(kind):
    copy = copier(kind)
    words, source, canvas = batch()
    together = copy(words, source, canvas)
    for i in range(len(SIZES)):
        *alone, mask = batch(rows=[i])
        assert torch.allclose(copy(*alone, mask)[0], together[i][canvas[i]], atol=1e-6)


@KINDS
def test_candidates_of_one_sentence_are_of_different_lengths(kind):
    """Rows of one source repeated, each with a canvas of its own."""
    words, source, _ = batch(rows=[6])
    canvas = torch.stack([padded(n, 9, False) for n in (1, 4, 9)])
    found = copier(kind)(*(x.repeat_interleave(3, 0) for x in (words, source)), canvas)
    for row, mask, n in zip(found, canvas, (1, 4, 9)):
        assert torch.allclose(row[mask], REFERENCES[kind](SOURCES[6], n), atol=1e-5)


@KINDS
@pytest.mark.parametrize("left", [False, True])
def test_gradient_reaches_real_words_only(kind, left):
    words, source, canvas = batch(left, left)
    words.requires_grad_()
    copier(kind)(words, source, canvas)[canvas].sum().backward()
    assert words.grad.isfinite().all()
    assert (words.grad[~source] == 0).all()
    rows = source.sum(-1) < canvas.sum(-1)  # every word is copied somewhere
    assert (words.grad[rows][source[rows]] > 0).all()


def test_the_temperature_is_learnt():
    """Its gradient is that of the formula, by differences."""
    words, source, canvas = batch()
    weight = torch.randn(*canvas.shape, 4, generator=torch.Generator().manual_seed(1))

    def value(log_tau):
        copy = COPIES["soft"]()
        torch.nn.init.constant_(copy.log_tau, log_tau)
        return copy, (copy(words, source, canvas) * weight)[canvas].sum()

    copy, total = value(LOG_TAU)
    total.backward()
    step = (value(LOG_TAU + 1e-2)[1] - value(LOG_TAU - 1e-2)[1]) / 2e-2
    assert abs(step) > 0.1
    assert copy.log_tau.grad.item() == pytest.approx(step.item(), rel=1e-2)


@pytest.mark.parametrize("log_tau", [-60.0, 60.0, 200.0])
def test_an_extreme_temperature_copies_the_nearest_word_or_the_mean(log_tau):
    """And has a finite gradient, where tau or its square is 0 or infinite in fp32."""
    copy, (words, source, canvas) = COPIES["soft"](), batch(rows=[4, 9])  # 5 of 5 and 3 of 5: no place between words
    torch.nn.init.constant_(copy.log_tau, log_tau)
    found = copy(words.requires_grad_(), source, canvas)
    found[canvas].pow(2).sum().backward()
    for row, mask, own in zip(found, canvas, (SOURCES[4], SOURCES[9])):
        n = int(mask.sum())
        expected = uniform(own, n) if log_tau < 0 else own.mean(0).expand(n, -1)
        assert torch.allclose(row[mask], expected, atol=1e-5)
    assert copy.log_tau.grad.isfinite() and words.grad.isfinite().all()


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(kind, dtype):
    """Places are counted exactly; words and temperature are as they come."""
    words, source, canvas = batch()
    words = words.masked_fill(~source[..., None], 0).to(dtype).requires_grad_()
    copy = copier(kind).to(dtype)
    found = copy(words, source, canvas)
    assert found.dtype == dtype
    found[canvas].float().pow(2).sum().backward()
    expected = copier(kind)(words.detach().float(), source, canvas)
    assert torch.allclose(found.float()[canvas], expected[canvas], atol=3e-2)
    grads = [words.grad, *(p.grad for p in copy.parameters())]
    assert all(grad.isfinite().all() and (grad != 0).any() for grad in grads)


def test_places_of_long_sentences_are_exact_in_half_precision():
    words = torch.arange(600)[None, :, None].float()
    everything = torch.ones(1, 1800, dtype=torch.bool)
    found = copier("uniform")(words, everything[:, :600], everything)[0, :, 0].tolist()
    assert found == uniform(words[0], 1800)[:, 0].tolist()


def test_nothing_copies_nothing():
    copy = copier("none")
    assert copy(*batch()) is None
    assert not list(copy.parameters())


def test_unknown_copies_are_explained():
    with pytest.raises(UserError, match="'hard'.*none, soft, uniform"):
        COPIES["hard"]
