"""Decoding in one pass: what is revealed on the way, and the words that are read, whatever the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from blocks import ALIGNMENTS, BOS, EOS, MASK, PAD, SOURCE, build, lengths_of
from torch import Tensor

from fairseq_diffusion.alignment import base
from fairseq_diffusion.alignment.base import Guess, Revealed
from fairseq_diffusion.translators import one_pass_decoding
from fairseq_diffusion.translators.batch import Draft, HistoryStep
from fairseq_diffusion.translators.one_pass import OnePassTranslator
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions, reveal_surest

# SOURCE, padded on the left behind the begin, which stays in front as models have it
LEFT = torch.tensor([[BOS, PAD, PAD, 5, 6, 7, EOS], [BOS, 8, 9, 10, 11, 12, EOS], [BOS, PAD, PAD, PAD, 4, 4, EOS]])


@torch.no_grad()
def decode(model: OnePassTranslator, source: Tensor = SOURCE, **options: Any) -> tuple[list[Any], list[Tensor]]:
    """The words of each candidate, as lists, and what each block was fed, [S, K, L].  Two lengths where one is to be
    chosen, and a greedy path where one is to be found."""
    if model.alignment.name == "dag":
        options["path_search"] = "greedy"
    steps: list[HistoryStep] = []
    encoded = model.eval().encode(source, source.ne(PAD))
    lengths = model.lengths(encoded, 1, "top_k")
    if lengths.predicted:
        lengths = lengths_of(torch.tensor([[5, 6], [7, 4], [3, 5]])[: len(source)])
    keys = torch.zeros(*lengths.positions.shape, 1, dtype=torch.long)
    found = model.decoder_for(OnePassOptions(**options))(encoded, lengths, keys, steps.append)
    words = [[tokens[tokens >= 0].tolist() for tokens in candidates] for candidates in found.tokens]
    return words, [step.tokens for step in steps[:-1]]


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_translation_does_not_depend_on_batch_or_padding(kind):
    model = build(alignment=kind, blocks=2, source_copy="uniform")
    together, _ = decode(model)
    assert any(any(words) for words in together)
    assert decode(model, LEFT)[0] == together
    assert decode(model, F.pad(SOURCE, (0, 3), value=PAD))[0] == together
    assert decode(model, SOURCE[:1, :5])[0] == together[:1]


def test_the_surest_words_are_revealed_on_the_way():
    """floor(kappa_s n) behind block s, and what is revealed stays."""
    words, seen = decode(build(blocks=4), keep_schedule="linear")
    hidden = torch.stack([(z == MASK).sum(-1) for z in seen])
    n = hidden[0]
    assert n.tolist() == [[3, 4], [5, 2], [1, 3]]
    assert hidden.tolist() == [(n - (n * s / 4).floor().long()).tolist() for s in range(4)]
    for before, after in zip(seen, seen[1:]):
        assert torch.equal(after[before != MASK], before[before != MASK])
    last = seen[-1][0, 1, 1:5]
    assert [word for word, z in zip(words[0][1], last.tolist()) if z != MASK] == last[last != MASK].tolist()


def test_ctc_may_reveal_words_alone():
    """floor(kappa_s w) of the w words that a block predicts, however sure it is of blanks; blanks stay open."""
    flags = {"alignment": "ctc", "blocks": 4}
    words, (_, *seen) = decode(build(**flags, reveal="words"))
    shown = [(z != MASK) & (z != PAD) for z in seen]
    assert not any(((z == BOS) & here).any() for z, here in zip(seen, shown))
    assert shown[0].sum() < shown[-1].sum()
    assert all((before <= after).all() for before, after in zip(shown, shown[1:]))
    _, (_, *mixed) = decode(build(**flags))
    assert any((z == BOS).any() for z in mixed)


@pytest.mark.parametrize("kind", ["length", "ctc"])
@pytest.mark.parametrize("keep", ["linear", "cosine"])
def test_only_what_may_be_hidden_goes_through_the_projection(kind, keep, monkeypatch):
    """Fewer positions at each block; the words are those that they would be if all went."""
    model, rows = build(alignment=kind, blocks=4), []
    project = base.round_to_rows
    monkeypatch.setattr(base, "round_to_rows", lambda x, *other: (rows.append(len(x)), project(x, *other))[1])
    words, _ = decode(model, passes=2, keep_schedule=keep)
    assert rows[0] > rows[1] > rows[2] > rows[3]
    monkeypatch.setattr(one_pass_decoding, "Revealed", lambda *parts: Revealed(*parts[:3]))
    assert decode(model, passes=2, keep_schedule=keep)[0] == words
    assert len({*rows[8:]}) == 1


def test_nothing_is_revealed_on_the_way_with_the_schedule_none():
    _, seen = decode(build(blocks=4), keep_schedule="none")
    assert len(seen) == 4
    assert all(torch.equal(z, seen[0]) for z in seen)


def test_passes_hide_the_least_certain_words_again():
    """Behind pass p of N, floor(n (N - p) / N) of n words; those that stay keep their words."""
    words, seen = decode(build(), passes=3)
    hidden = torch.stack([(z == MASK).sum(-1) for z in seen])
    n = hidden[0]
    assert hidden.tolist() == [(n * (3 - p) / 3).floor().long().tolist() for p in range(3)]
    shown = seen[-1][1, 0, 1:6]
    assert [word for word, z in zip(words[1][0], shown.tolist()) if z != MASK] == shown[shown != MASK].tolist()
    assert math.prod(shown.shape) > (shown == MASK).sum() > 0


DRAFT = Draft(
    torch.tensor([[BOS, 5, 6, 7, 8, EOS, PAD], [BOS, 9, 9, 10, 4, 5, EOS], [BOS, 4, EOS, PAD, PAD, PAD, PAD]]),
    -torch.tensor([[0, 0.1, 0.4, 0.3, 0.2, 0, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0], [0, 0.1, 0, 0, 0, 0, 0]]),
)


def decode_from_draft(model: OnePassTranslator, **options: Any) -> tuple[list[list[int]], list[Tensor]]:
    """The words, and what each block was fed, [S, L]."""
    steps: list[HistoryStep] = []
    encoded, positions = model.eval().encode(SOURCE, SOURCE.ne(PAD)), DRAFT.tokens.ne(PAD).sum(-1, keepdim=True)
    lengths = lengths_of(positions)._replace(draft=DRAFT)
    decoder = model.decoder_for(OnePassOptions(**options))
    found = decoder(encoded, lengths, torch.zeros(3, 1, 1, dtype=torch.long), steps.append)
    return [row[row >= 0].tolist() for row in found.tokens[:, 0]], [step.tokens[:, 0] for step in steps[:-1]]


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_a_draft_keeps_its_surest_words(passes):
    """Before the first pass floor(n / 2) of n words; each pass then keeps more, as without a draft."""
    words, seen = decode_from_draft(build(), draft=0.5, passes=passes)
    assert [row.tolist() for row in seen[0]] == [
        [BOS, 5, MASK, MASK, 8, EOS, PAD],
        [BOS, 9, 9, MASK, MASK, MASK, EOS],
        [BOS, MASK, EOS, PAD, PAD, PAD, PAD],
    ]
    assert words[0][0] == 5 and words[0][3] == 8 or passes > 1
    hidden = torch.stack([(z == MASK).sum(-1) for z in seen])
    n = torch.tensor([4, 5, 1])
    for number in range(1, passes):
        assert hidden[number].tolist() == (n * 0.5 * (passes - number) / passes).floor().tolist()


def test_a_draft_whose_words_are_all_hidden_is_a_length():
    model = build()
    plain, _ = decode(model, passes=3)
    lengths = DRAFT.tokens.ne(PAD).sum(-1)
    drafted, seen = decode_from_draft(model, draft=1.0, passes=3)
    assert (seen[0] == MASK).sum(-1).tolist() == (lengths - 2).tolist()
    assert decode_at(model, lengths, passes=3) == drafted != plain


def decode_at(model: OnePassTranslator, lengths: Tensor, **options: Any) -> list[list[int]]:
    encoded = model.eval().encode(SOURCE, SOURCE.ne(PAD))
    keys = torch.zeros(3, 1, 1, dtype=torch.long)
    found = model.decoder_for(OnePassOptions(**options))(encoded, lengths_of(lengths[:, None]), keys)
    return [row[row >= 0].tolist() for row in found.tokens[:, 0]]


def preferring(model: OnePassTranslator, symbols: list[int]) -> OnePassTranslator:
    """The model, untrained, changed so that each block finds these symbols most probable everywhere."""
    for layer in model.decoder.layers:
        norm = layer.residuals[-1].norm
        norm.weight.data[0], norm.bias.data[0] = 0.0, 10.0
    model.decoder.words.weight.data[:, 0] = 0.0
    model.decoder.words.weight.data[symbols, 0] = 2.0
    return model


@pytest.mark.parametrize("feed", ["mask", "self"])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_no_special_symbol_is_ever_read_or_revealed(kind, passes, feed):
    """However probable; nor is the mask, which has no row in the projection.  CTC's begin of sentence is its blank."""
    specials = [PAD, EOS] if kind == "ctc" else [BOS, PAD, EOS]
    model, best = preferring(build(alignment=kind, blocks=2, feed=feed), [*specials, MASK]), []
    read = model.decoder.read
    model.decoder.read = lambda h: (best.append((read(h) @ model.decoder.vocabulary.T).argmax(-1)), read(h))[1]
    words, seen = decode(model, passes=passes)
    assert best and all(torch.isin(tokens, torch.tensor(specials)).all() for tokens in best)
    found = {word for candidates in words for candidate in candidates for word in candidate}
    assert found and not found & {BOS, PAD, EOS, MASK}
    hidden = seen[0] == MASK
    for z in seen:
        assert not torch.isin(z[hidden], torch.tensor(specials)).any()
        assert torch.equal(z[~hidden], seen[0][~hidden])
    assert len(seen) == 2 * passes
    assert (seen[-1] != seen[0]).any() or kind == "dag"  # where a path may end before its first word


def test_ties_are_revealed_from_the_left():
    hidden = torch.ones(1, 5, dtype=torch.bool)
    start = Revealed(torch.full((1, 5), MASK), hidden, torch.zeros(1, 5))
    guess = Guess(torch.arange(5)[None], torch.zeros(1, 5), hidden)
    assert reveal_surest(start, guess, 0.5).tokens.tolist() == [[0, 1, MASK, MASK, MASK]]
