"""Writing with a translator in one pass: what is shown on the way, what is said, and whatever the batch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from blocks import BACK_ENDS, BOS, EOS, MASK, PAD, SOURCE, build
from torch import Tensor

from fairseq_diffusion.alignment import base
from fairseq_diffusion.alignment.base import Finish, Guess, Shown
from fairseq_diffusion.translators import one_pass as glancing
from fairseq_diffusion.translators.one_pass import GlancingTranslator, reveal_surest

# SOURCE, padded on the left behind the begin, which stays in front as models have it
LEFT = torch.tensor([[BOS, PAD, PAD, 5, 6, 7, EOS], [BOS, 8, 9, 10, 11, 12, EOS], [BOS, PAD, PAD, PAD, 4, 4, EOS]])


def write(model: GlancingTranslator, source: Tensor = SOURCE, kind: str = "length", **how: object):
    """The words of each candidate, as lists."""
    encoded = model.eval().encode(source, source.ne(PAD))
    lengths = None
    if kind == "length":
        lengths = torch.tensor([[5, 6], [7, 4], [3, 5]])[: len(source)]
        lengths = lengths, int(lengths.max())
    written = model.write(encoded, lengths, Finish("greedy"), **how)
    return [
        [tokens[said].tolist() for tokens, said in zip(*candidates)] for candidates in zip(written.tokens, written.said)
    ]


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_translation_does_not_depend_on_batch_or_padding(kind):
    model = build(back_end=kind, blocks=2, source_copy="uniform")
    together = write(model, kind=kind)
    assert any(any(words) for words in together)
    assert write(model, LEFT, kind) == together
    assert write(model, F.pad(SOURCE, (0, 3), value=PAD), kind) == together
    assert write(model, SOURCE[:1, :5], kind) == together[:1]


def test_shown_on_the_way_are_the_surest_words():
    """floor(kappa_s n) behind block s, and what is shown stays."""
    model, seen = build(blocks=4, keep_schedule="linear"), []
    words = write(model, on_show=lambda shown: seen.append(shown.tokens))
    hidden = torch.stack([(z == MASK).view(3, 2, -1).sum(-1) for z in seen])
    n = hidden[0]
    assert n.tolist() == [[3, 4], [5, 2], [1, 3]]
    assert hidden.tolist() == [(n - (n * s / 4).floor().long()).tolist() for s in range(4)]
    for before, after in zip(seen, seen[1:]):
        assert torch.equal(after[before != MASK], before[before != MASK])
    last = seen[-1].view(3, 2, -1)[0, 1, 1:5]
    assert [word for word, z in zip(words[0][1], last.tolist()) if z != MASK] == last[last != MASK].tolist()


@pytest.mark.parametrize("kind", ["length", "ctc"])
@pytest.mark.parametrize("keep", ["linear", "cosine"])
def test_only_what_may_be_hidden_goes_through_the_projection(kind, keep, monkeypatch):
    """Fewer positions at each block; what is written is what it would be if all went."""
    model, rows = build(back_end=kind, blocks=4, keep_schedule=keep), []
    project = base.round_to_rows
    monkeypatch.setattr(base, "round_to_rows", lambda x, *other: (rows.append(len(x)), project(x, *other))[1])
    words = write(model, kind=kind, passes=2)
    assert rows[0] > rows[1] > rows[2] > rows[3]
    monkeypatch.setattr(glancing, "Shown", lambda *parts: Shown(*parts[:3]))
    assert write(model, kind=kind, passes=2) == words
    assert len({*rows[8:]}) == 1


def test_nothing_is_shown_on_the_way_where_the_schedule_says_so():
    model, seen = build(blocks=4, keep_schedule="none"), []
    write(model, on_show=lambda shown: seen.append(shown.tokens))
    assert len(seen) == 4
    assert all(torch.equal(z, seen[0]) for z in seen)


def test_passes_hide_the_least_certain_words_again():
    """Behind pass p of N, floor(n (N - p) / N) of n words; those that stay keep their words."""
    model, seen = build(), []
    words = write(model, on_show=lambda shown: seen.append(shown.tokens), passes=3)
    hidden = torch.stack([(z == MASK).view(3, 2, -1).sum(-1) for z in seen])
    n = hidden[0]
    assert hidden.tolist() == [(n * (3 - p) / 3).floor().long().tolist() for p in range(3)]
    shown = seen[-1].view(3, 2, -1)[1, 0, 1:6]
    assert [word for word, z in zip(words[1][0], shown.tolist()) if z != MASK] == shown[shown != MASK].tolist()
    assert math.prod(shown.shape) > (shown == MASK).sum() > 0


def loving(model: GlancingTranslator, symbols: list[int]) -> GlancingTranslator:
    """The model, untrained, whose every block gives all positions to these symbols."""
    for layer in model.decoder.layers:
        norm = layer.residuals[-1].norm
        norm.weight.data[0], norm.bias.data[0] = 0.0, 10.0
    model.decoder.words.weight.data[:, 0] = 0.0
    model.decoder.words.weight.data[symbols, 0] = 2.0
    return model


@pytest.mark.parametrize("feed", ["mask", "self"])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kind", BACK_ENDS)
def test_no_special_is_ever_written_or_shown(kind, passes, feed):
    """However likely; nor is the mask, which has no row in the projection.  A CTC's begin of sentence is its blank."""
    specials = [PAD, EOS] if kind == "ctc" else [BOS, PAD, EOS]
    model, seen, likeliest = loving(build(back_end=kind, blocks=2, feed=feed), [*specials, MASK]), [], []
    read = model.decoder.read
    model.decoder.read = lambda h: (likeliest.append((read(h) @ model.decoder.vocabulary.T).argmax(-1)), read(h))[1]
    words = write(model, kind=kind, passes=passes, on_show=lambda shown: seen.append(shown.tokens))
    assert all(torch.isin(best, torch.tensor(specials)).all() for best in likeliest)
    written = {word for candidates in words for said in candidates for word in said}
    assert written and not written & {BOS, PAD, EOS, MASK}
    hidden = seen[0] == MASK
    for z in seen:
        assert not torch.isin(z[hidden], torch.tensor(specials)).any()
        assert torch.equal(z[~hidden], seen[0][~hidden])
    assert len(seen) == 2 * passes
    assert (seen[-1] != seen[0]).any() or kind == "dag"  # where a path may end before its first word


def test_ties_are_shown_from_the_left():
    hidden = torch.ones(1, 5, dtype=torch.bool)
    start = Shown(torch.full((1, 5), MASK), hidden, torch.zeros(1, 5))
    guess = Guess(torch.arange(5)[None], torch.zeros(1, 5), hidden)
    assert reveal_surest(start, guess, 0.5).tokens.tolist() == [[0, 1, MASK, MASK, MASK]]
