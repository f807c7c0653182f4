"""Beam search over CTC's sentences, against the enumeration of all alignments."""

from itertools import groupby, product
from math import inf, log

import pytest
import torch
from beams import assert_same, by_prefixes, candidates, ranked

from fairseq_diffusion.alignment import ctc_beam
from fairseq_diffusion.alignment.beam import beam_search
from fairseq_diffusion.alignment.ctc_beam import Positions

SIZES = [5, 1, 2, 4, 3, 5]
WORDS, BLANK = 3, 7  # words 0..2
FULL = 200  # more sentences than five positions can have


def random_canvases(sizes, seed, sharpness=1.5):
    """log P of the words and of the blank at each position [B, L, 4], the blank last."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(len(sizes), max(sizes), WORDS + 1, generator=generator, dtype=torch.double)
    return logits.log_softmax(-1)


def places(log_p, sizes, listed=WORDS + 1):
    """As an alignment lists them: the likeliest symbols of each position, best first, blanks among them or not."""
    best, symbols = log_p.topk(listed, -1)
    tokens = torch.where(symbols == WORDS, BLANK, symbols)
    return Positions.of(tokens, best, log_p[..., -1], torch.tensor(sizes), BLANK)


def all_sentences(log_p, listed=WORDS + 1):
    """{words: P} of one canvas [L, 4], over all of its alignments."""
    sentences = {}
    kept = [{*row.topk(listed).indices.tolist(), WORDS} for row in log_p]
    for alignment in product(*kept):
        words = tuple(symbol for symbol, _ in groupby(alignment) if symbol != WORDS)
        p = sum(float(row[symbol]) for row, symbol in zip(log_p, alignment))
        sentences[words] = sentences.get(words, 0.0) + torch.tensor(p).double().exp().item()
    return sentences


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("listed", [4, 2])
def test_a_wide_beam_is_exhaustive(listed, penalty):
    log_p = random_canvases(SIZES, seed=1)
    found = beam_search(places(log_p, SIZES, listed), FULL, 10, penalty)
    for b, size in enumerate(SIZES):
        sentences = all_sentences(log_p[b, :size], listed)
        assert_same(candidates(found, b), ranked(sentences, penalty, FULL))
    assert len(sentences) > 15 and (listed < 4 or sum(sentences.values()) == pytest.approx(1))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_narrow_beam_keeps_the_likeliest_prefixes(width, penalty):
    log_p, sizes = random_canvases(SIZES * 4, seed=2), SIZES * 4
    found = beam_search(places(log_p, sizes), width, 10, penalty)
    pruned = 0
    for b, size in enumerate(sizes):
        sentences = all_sentences(log_p[b, :size])
        expected = by_prefixes(sentences, width, penalty, 5)
        assert_same(candidates(found, b), expected)
        pruned += expected != ranked(sentences, penalty, width)
    assert width > 2 or pruned


def test_words_and_end_add_up():
    log_p = random_canvases(SIZES, seed=3)
    found = beam_search(places(log_p, SIZES), 4, 10)
    real = found.log_p > -inf
    torch.testing.assert_close(found.word_log_p.sum(-1)[real], found.log_p[real])
    sentences, (words, _) = all_sentences(log_p[0]), candidates(found, 0)[0]
    for t in range(len(words)):
        shares = [sum(p for s, p in sentences.items() if s[:n] == words[:n]) for n in (t, t + 1)]
        assert found.word_log_p[0, 0, t].exp() == pytest.approx(shares[1] / shares[0], rel=1e-4)


def test_neither_batch_nor_padding_makes_a_difference():
    log_p = random_canvases(SIZES, seed=4)
    together = beam_search(places(log_p, SIZES, 2), 7, 3)
    for b, size in enumerate(SIZES):
        alone = beam_search(places(log_p[b : b + 1, :size], [size], 2), 7, 3)
        assert candidates(alone, 0) == candidates(together, b) and candidates(alone, 0)
        assert torch.equal(alone.sizes[0], together.sizes[b])


def certain(symbols, p):
    """One canvas on which nearly all is certain: the symbol of each position has probability p, the rest is nothing."""
    log_p = torch.full((1, len(symbols), WORDS + 1), -inf, dtype=torch.double)
    log_p[0, torch.arange(len(symbols)), torch.tensor(symbols)] = log(p)
    return places(log_p, [len(symbols)], 1)


def test_a_word_repeats_behind_a_blank_only():
    assert candidates(beam_search(certain([0, 0, 1, 1, 1, 0], 1.0), 2, 10), 0) == [((0, 1, 0), 0.0)]
    assert candidates(beam_search(certain([0, WORDS, 0, 1, WORDS, 1], 1.0), 2, 10), 0) == [((0, 0, 1, 1), 0.0)]


def test_long_canvases_do_not_underflow():
    found = beam_search(certain([i % 3 for i in range(300)], 1e-4), 2, 400)
    assert found.sizes[0, 0] == 300
    assert float(found.log_p[0, 0]) == pytest.approx(300 * log(1e-4), rel=1e-5)


def test_products_of_runs():
    p = torch.tensor([0.5, 0.25, 0.0, 0.5], dtype=torch.double)
    expected = [[0.5, 0.125, 0, 0], [0, 0.25, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.5]]
    torch.testing.assert_close(ctc_beam.runs(p), torch.tensor(expected, dtype=torch.double))
