"""Canvases of any alignment, and the one whose length is predicted."""

from fractions import Fraction
from itertools import groupby
from math import floor

import pytest
import torch
from canvases import (
    BOS,
    EOS,
    HIDDEN,
    MASK,
    PAD,
    SYMBOLS,
    V,
    dag_of,
    empty,
    log_probs,
    outputs,
    predictable,
    predicting,
    reading,
    revealing,
    targets,
    total,
)

from fairseq_diffusion.alignment.base import ALIGNMENTS, Words, without_repeats
from fairseq_diffusion.alignment.length import LengthAlignment
from fairseq_diffusion.alignment.paths import SEARCHES


def alignment(kind, upsample=2.0, hidden=HIDDEN):
    return ALIGNMENTS[kind](SYMBOLS, upsample, **({"links": dag_of(hidden).links} if kind == "dag" else {}))


KINDS = pytest.mark.parametrize("kind", ALIGNMENTS)

# -- canvases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", ["1", "1.13", "2", "2.5", "3.3", "8"])
@pytest.mark.parametrize("left", [False, True])
def test_sizes_are_the_source_times_a_number_rounded_down(upsample, left):
    """1.13 * 100 is 112.99999999999999."""
    place, lengths = torch.arange(100), torch.arange(1, 101)[:, None]
    mask = place >= 100 - lengths if left else place < lengths
    sizes, width = LengthAlignment(SYMBOLS, float(upsample)).sizes(mask)
    expected = [max(2, floor(n * Fraction(upsample))) for n in range(1, 101)]
    assert sizes.tolist() == [[size] for size in expected]
    assert width == expected[-1]


def test_a_size_does_not_depend_on_the_batch():
    part, mask = LengthAlignment(SYMBOLS, 2.5), torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    sizes, width = part.sizes(mask)
    assert sizes.tolist() == [[7], [12]] and width == 15
    assert part.sizes(mask[:1, :3])[0].tolist() == [[7]]
    assert part.sizes(mask[:1, :1])[0].tolist() == [[2]]


@KINDS
def test_an_empty_canvas(kind):
    """K sizes of each source, in a row."""
    canvas = alignment(kind).canvas(torch.tensor([[2, 5], [4, 3]]), 6)
    first, last = (MASK, MASK) if kind == "ctc" else (BOS, EOS)
    expected = [[first] + [MASK] * (n - 2) + [last] + [PAD] * (6 - n) for n in (2, 5, 4, 3)]
    assert canvas.tokens.tolist() == expected
    assert canvas.mask.tolist() == [[place < n for place in range(6)] for n in (2, 5, 4, 3)]
    assert canvas.hidden.tolist() == [[token == MASK for token in row] for row in expected]


@KINDS
def test_what_an_empty_canvas_shows_is_the_targets_begin_and_end(kind):
    part, (target, mask) = alignment(kind), targets((4, 5, 4), (), (5,))
    canvas = part.canvas(torch.tensor([[5], [6], [2]]), 6)
    index = part.given(canvas, mask)
    ends = {(0, 0): 0, (0, 4): 4, (1, 0): 0, (1, 5): 1, (2, 0): 0, (2, 1): 2}
    expected = torch.full((3, 6), -1)
    for at, column in ends.items() if kind != "ctc" else ():
        expected[at] = column
    assert torch.equal(index, expected)
    shown = torch.where(index >= 0, target.gather(1, index.clamp(min=0)), canvas.tokens)
    assert torch.equal(shown, canvas.tokens)


def test_what_is_known_beforehand():
    parts = {kind: alignment(kind) for kind in ALIGNMENTS}
    facts = {kind: (part.predicts_length, part.aligned, part.has_ends) for kind, part in parts.items()}
    assert facts == {"length": (True, True, True), "ctc": (False, False, False), "dag": (False, False, True)}
    for part in parts.values():
        if not part.aligned:
            with pytest.raises(NotImplementedError):
                part.known_index(torch.ones(1, 3).bool())


@pytest.mark.parametrize("kind", ["length", "ctc"])
def test_a_guess_is_the_likeliest_word_and_what_is_shown_stays(kind):
    part = alignment(kind)
    canvas = part.canvas(torch.tensor([[5], [3]]), 5)
    h, words = outputs(canvas)
    likeliest = log_probs(h, words)
    best = predictable(part, likeliest).max(-1)
    assert (best.values != likeliest.amax(-1)).any()  # symbols that are never predicted are in the softmax
    other = (best.indices[0, 2] + 1) % MASK
    shown = revealing(canvas, {(0, 2): int(other)})
    guess = part.guess(h, words, canvas, shown)
    assert torch.equal(guess.tokens, torch.where(shown.hidden, best.indices, shown.tokens))
    assert torch.allclose(guess.log_p, torch.where(shown.hidden, best.values, shown.log_p.double()).float())
    assert guess.log_p[0, 2] == -0.25 and guess.tokens[0, 2] == other
    assert torch.equal(guess.predicted, canvas.hidden)


# -- repeats ----------------------------------------------------------------------------------------------------------


def test_without_repeats_the_first_of_neighbours_stays_and_the_end_has_the_others_log_probability():
    g = torch.Generator().manual_seed(0)
    tokens, log_p = torch.randint(2, (40, 2, 6), generator=g), -torch.rand(40, 2, 6, generator=g)
    before = torch.arange(6) < torch.arange(40)[:, None, None] % 7
    words = Words(tokens, log_p, before.expand(-1, 2, -1), -torch.rand(40, 2, generator=g))
    found = without_repeats(words)
    for row, mask, kept in zip(*(part.flatten(0, 1) for part in (tokens, words.mask, found.mask))):
        assert row[kept].tolist() == [word for word, _ in groupby(row[mask].tolist())]
    assert (found.mask <= words.mask).all()
    assert torch.equal(found.tokens, tokens) and torch.equal(found.log_p, log_p)
    assert torch.allclose(total(found), total(words), atol=1e-6)
    assert torch.equal(found.end_log_p == words.end_log_p, (found.mask == words.mask).all(-1))


def test_what_is_no_word_is_no_neighbour():
    """<s> and </s> are given, whatever stands beside them."""
    mask = torch.tensor([[False, True, True], [True, True, False]])
    words = Words(torch.full((1, 2, 3), 4), torch.zeros(1, 2, 3), mask[None], torch.zeros(1, 2))
    assert without_repeats(words).mask.tolist() == [[[False, True, False], [True, False, False]]]


# -- what is never predicted ------------------------------------------------------------------------------------------

SPECIALS = {"length": (BOS, PAD, EOS), "ctc": (PAD, EOS), "dag": (BOS, PAD, EOS)}
READINGS = [("length", "greedy"), ("ctc", "greedy"), *(("dag", search) for search in SEARCHES)]


@pytest.mark.parametrize("count", [1, MASK])
@pytest.mark.parametrize("kind, search", READINGS)
def test_no_special_symbol_is_ever_predicted(kind, search, count):
    """However likely; with all words of a vertex listed, too.  A CTC's begin of sentence is its blank."""
    part, specials = alignment(kind, hidden=V), torch.tensor(SPECIALS[kind])
    canvas = part.canvas(torch.tensor([[7], [4], [2]]), 7)
    likeliest = specials[torch.arange(7) % len(specials)].expand(3, -1)
    h, words = predicting(likeliest)
    shown = empty(canvas)
    guess = part.guess(h, words, canvas, shown)
    assert not torch.isin(guess.tokens[canvas.hidden], specials).any()
    keys = torch.arange(60).view(3, 20)
    how = reading(1, keys, path_search=search, lookahead_weight=0.1, vertex_tokens=count, beam=6)
    found = part.words(h, words, canvas, shown, how)
    assert found.mask[0].any()
    assert not torch.isin(found.tokens[found.mask], torch.tensor([BOS, PAD, EOS])).any()
    assert found.log_p[found.mask].isfinite().all()


@KINDS
def test_what_is_never_predicted_moves_with_the_model_and_is_not_saved(kind):
    part = alignment(kind)
    assert dict(part.named_buffers())["banned"].tolist() == [*SPECIALS[kind]]
    assert not any("banned" in name for name in part.state_dict())


# -- a predicted length -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_by_length_the_words_that_are_not_shown_are_graded(smoothing):
    """-(1 - e) log p(y) - e mean log p, and of all places the words'."""
    part, (target, mask) = (
        LengthAlignment(SYMBOLS, 2.0, label_smoothing=smoothing),
        targets((4, 5, 4), (), (5,), (5, 5)),
    )
    canvas = part.canvas(mask.sum(-1, keepdim=True), target.shape[1])
    h, words = outputs(canvas)
    index = part.given(canvas, mask)
    index[0, 2] = 2
    index[2, 1] = 1  # nothing is left there
    scored = part.score(h, words, target, mask, canvas, index)
    log_p = log_probs(h, words)
    graded = {0: [1, 3], 1: [], 2: [], 3: [1, 2]}
    for i, positions in graded.items():
        nll = sum(-(1 - smoothing) * log_p[i, j, target[i, j]] - smoothing * log_p[i, j].mean() for j in positions)
        assert float(scored.nll[i]) == pytest.approx(float(nll), abs=1e-4)
    assert scored.count.tolist() == [2, 1, 1, 2]
    assert torch.equal(scored.best, log_p.argmax(-1))
    assert scored.impossible.tolist() == [False] * 4


def test_by_length_each_word_stands_at_its_own_place():
    part, (target, mask) = LengthAlignment(SYMBOLS, 2.0), targets((4, 5), ())
    canvas = part.canvas(mask.sum(-1, keepdim=True), 4)
    expected = [[0, 1, 2, 3], [0, 1, -1, -1]]
    assert part.known_index(mask).tolist() == expected
    h, words = outputs(canvas)
    scored = part.score(h, words, target, mask, canvas, part.given(canvas, mask))
    assert scored.align().tolist() == expected


@pytest.mark.parametrize("drop", [False, True])
def test_by_length_the_words_that_are_read(drop):
    """Two candidates of each of two sentences; repeats stay unless they are to be dropped."""
    part = LengthAlignment(SYMBOLS, 2.0)
    canvas = part.canvas(torch.tensor([[6, 4], [2, 5]]), 6)
    best = torch.tensor([[4, 4, 4, 5, 5, 4], [4, 5, 4, 4, 4, 4], [4] * 6, [5, 5, 5, 5, 5, 5]])
    h, words = predicting(best)
    shown = revealing(canvas, {(0, 2): 5})
    read = part.words(h, words, canvas, shown, reading(2))
    read = without_repeats(read) if drop else read
    found = [row[mask].tolist() for row, mask in zip(read.tokens.flatten(0, 1), read.mask.flatten(0, 1))]
    expected = [[4, 5, 5, 5], [5, 4], [], [5, 5, 5]]
    assert found == ([[word for word, _ in groupby(row)] for row in expected] if drop else expected)
    assert [part.shape for part in read] == [(2, 2, 6)] * 3 + [(2, 2)]
    whole = torch.where(shown.hidden, log_probs(h, words).amax(-1).float(), shown.log_p).sum(-1)
    assert torch.allclose(total(read).flatten(), whole)


def test_the_words_do_not_depend_on_the_width():
    part = LengthAlignment(SYMBOLS, 2.0)
    narrow, wide = (part.canvas(torch.tensor([[4]]), width) for width in (4, 7))
    h, words = outputs(wide)
    one, other = (
        part.words(h[:, : canvas.mask.shape[1]], words, canvas, empty(canvas), reading()) for canvas in (narrow, wide)
    )
    assert torch.equal(one.tokens[one.mask], other.tokens[other.mask])
    assert torch.allclose(one.log_p[one.mask], other.log_p[other.mask])
