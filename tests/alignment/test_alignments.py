"""Canvases of any back end, and the one whose length is predicted."""

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
    revealing,
    sayable,
    saying,
    targets,
    total,
)

from fairseq_diffusion.alignment import ctc, dag, length  # noqa: F401  enters them
from fairseq_diffusion.alignment.base import BACK_ENDS, BackEnd, Finish, Written, packed, without_repeats
from fairseq_diffusion.alignment.length import LengthBackEnd


def back_end(kind, upsample=2.0, hidden=HIDDEN):
    return BACK_ENDS[kind](SYMBOLS, upsample, **({"links": dag_of(hidden).links} if kind == "dag" else {}))


KINDS = pytest.mark.parametrize("kind", BACK_ENDS)

# -- canvases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", ["1", "1.13", "2", "2.5", "3.3", "8"])
@pytest.mark.parametrize("left", [False, True])
def test_sizes_are_the_source_times_a_number_rounded_down(upsample, left):
    """1.13 * 100 is 112.99999999999999."""
    place, lengths = torch.arange(100), torch.arange(1, 101)[:, None]
    mask = place >= 100 - lengths if left else place < lengths
    sizes, width = BackEnd(SYMBOLS, float(upsample)).sizes(mask)
    expected = [max(2, floor(n * Fraction(upsample))) for n in range(1, 101)]
    assert sizes.tolist() == [[size] for size in expected]
    assert width == expected[-1]


def test_a_size_does_not_depend_on_the_batch():
    part, mask = BackEnd(SYMBOLS, 2.5), torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    sizes, width = part.sizes(mask)
    assert sizes.tolist() == [[7], [12]] and width == 15
    assert part.sizes(mask[:1, :3])[0].tolist() == [[7]]
    assert part.sizes(mask[:1, :1])[0].tolist() == [[2]]


@KINDS
def test_an_empty_canvas(kind):
    """K sizes of each source, in a row."""
    canvas = back_end(kind).canvas(torch.tensor([[2, 5], [4, 3]]), 6)
    first, last = (MASK, MASK) if kind == "ctc" else (BOS, EOS)
    expected = [[first] + [MASK] * (n - 2) + [last] + [PAD] * (6 - n) for n in (2, 5, 4, 3)]
    assert canvas.tokens.tolist() == expected
    assert canvas.mask.tolist() == [[place < n for place in range(6)] for n in (2, 5, 4, 3)]
    assert canvas.hidden.tolist() == [[token == MASK for token in row] for row in expected]


@KINDS
def test_what_an_empty_canvas_shows_is_the_targets_begin_and_end(kind):
    part, (target, mask) = back_end(kind), targets((4, 5, 4), (), (5,))
    canvas = part.canvas(torch.tensor([[5], [6], [2]]), 6)
    place = part.given(canvas, mask)
    ends = {(0, 0): 0, (0, 4): 4, (1, 0): 0, (1, 5): 1, (2, 0): 0, (2, 1): 2}
    expected = torch.full((3, 6), -1)
    for at, column in ends.items() if kind != "ctc" else ():
        expected[at] = column
    assert torch.equal(place, expected)
    shown = torch.where(place >= 0, target.gather(1, place.clamp(min=0)), canvas.tokens)
    assert torch.equal(shown, canvas.tokens)


def test_what_they_know_beforehand():
    parts = {kind: back_end(kind) for kind in BACK_ENDS}
    facts = {kind: (part.predicts_length, part.aligned, part.has_ends) for kind, part in parts.items()}
    assert facts == {"length": (True, True, True), "ctc": (False, False, False), "dag": (False, False, True)}
    for part in parts.values():
        if not part.aligned:
            with pytest.raises(NotImplementedError):
                part.alignment(torch.ones(1, 3).bool())


@pytest.mark.parametrize("kind", ["length", "ctc"])
def test_a_guess_is_the_likeliest_word_and_what_is_shown_stays(kind):
    part = back_end(kind)
    canvas = part.canvas(torch.tensor([[5], [3]]), 5)
    h, words = outputs(canvas)
    likeliest = log_probs(h, words)
    best = sayable(part, likeliest).max(-1)
    assert (best.values != likeliest.amax(-1)).any()  # what is never said is in the softmax
    other = (best.indices[0, 2] + 1) % MASK
    shown = revealing(canvas, {(0, 2): int(other)})
    guess = part.guess(h, words, canvas, shown)
    assert torch.equal(guess.tokens, torch.where(shown.hidden, best.indices, shown.tokens))
    assert torch.allclose(guess.log_p, torch.where(shown.hidden, best.values, shown.log_p.double()).float())
    assert guess.log_p[0, 2] == -0.25 and guess.tokens[0, 2] == other
    assert torch.equal(guess.open, canvas.hidden)


# -- what is said -----------------------------------------------------------------------------------------------------


def test_packed_moves_what_is_said_to_the_front_and_keeps_its_order():
    g = torch.Generator().manual_seed(0)
    tokens, said = torch.randint(20, (30, 2, 7), generator=g), torch.rand(30, 2, 7, generator=g) < 0.5
    new, log_p, front = packed(tokens, tokens / 2, said)
    assert torch.equal(log_p, new / 2)
    assert torch.equal(front, torch.arange(7) < said.sum(-1, keepdim=True))
    assert torch.equal(new[front], tokens[said])
    assert torch.equal(new.sort(-1).values, tokens.sort(-1).values)


def test_without_repeats_the_first_of_neighbours_stays_and_the_end_answers_for_the_others():
    g = torch.Generator().manual_seed(0)
    tokens, log_p = torch.randint(2, (40, 2, 6), generator=g), -torch.rand(40, 2, 6, generator=g)
    before = torch.arange(6) < torch.arange(40)[:, None, None] % 7
    written = Written(tokens, log_p, before.expand(-1, 2, -1), -torch.rand(40, 2, generator=g))
    found = without_repeats(written)
    for row, mask, kept in zip(*(part.flatten(0, 1) for part in (tokens, written.said, found.said))):
        assert row[kept].tolist() == [word for word, _ in groupby(row[mask].tolist())]
    assert (found.said <= written.said).all()
    assert torch.equal(found.tokens, tokens) and torch.equal(found.log_p, log_p)
    assert torch.allclose(total(found), total(written), atol=1e-6)
    assert torch.equal(found.end_log_p == written.end_log_p, (found.said == written.said).all(-1))


def test_what_is_not_said_is_no_neighbour():
    """<s> and </s> are given, whatever stands beside them."""
    said = torch.tensor([[False, True, True], [True, True, False]])
    written = Written(torch.full((1, 2, 3), 4), torch.zeros(1, 2, 3), said[None], torch.zeros(1, 2))
    assert without_repeats(written).said.tolist() == [[[False, True, False], [True, False, False]]]


# -- what is never written --------------------------------------------------------------------------------------------

SPECIALS = {"length": (BOS, PAD, EOS), "ctc": (PAD, EOS), "dag": (BOS, PAD, EOS)}
READINGS = [("length", "greedy"), ("ctc", "greedy"), *(("dag", search) for search in dag.SEARCHES)]


@pytest.mark.parametrize("count", [1, MASK])
@pytest.mark.parametrize("kind, search", READINGS)
def test_no_special_is_ever_written(kind, search, count):
    """However likely; with all words of a vertex listed, too.  A CTC's begin of sentence is its blank."""
    part, specials = back_end(kind, hidden=V), torch.tensor(SPECIALS[kind])
    canvas = part.canvas(torch.tensor([[7], [4], [2]]), 7)
    likeliest = specials[torch.arange(7) % len(specials)].expand(3, -1)
    h, words = saying(likeliest)
    shown = empty(canvas)
    guess = part.guess(h, words, canvas, shown)
    assert not torch.isin(guess.tokens[canvas.hidden], specials).any()
    keys = torch.arange(60).view(3, 20)
    written = part.write(h, words, canvas, shown, Finish(search, 0.1, vertex_tokens=count, beam=6, keys=keys), 1)
    assert written.said[0].any()
    assert not torch.isin(written.tokens[written.said], torch.tensor([BOS, PAD, EOS])).any()
    assert written.log_p[written.said].isfinite().all()


@KINDS
def test_what_is_never_written_moves_with_the_model_and_is_not_saved(kind):
    part = back_end(kind)
    assert dict(part.named_buffers())["banned"].tolist() == [*SPECIALS[kind]]
    assert not any("banned" in name for name in part.state_dict())


# -- a predicted length -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_by_length_the_words_that_are_not_shown_are_graded(smoothing):
    """-(1 - e) log p(y) - e mean log p, and of all places the words'."""
    part, (target, mask) = LengthBackEnd(SYMBOLS, 2.0, smoothing), targets((4, 5, 4), (), (5,), (5, 5))
    canvas = part.canvas(mask.sum(-1, keepdim=True), target.shape[1])
    h, words = outputs(canvas)
    place = part.given(canvas, mask)
    place[0, 2] = 2
    place[2, 1] = 1  # nothing is left there
    reading = part.read(h, words, target, mask, canvas, place)
    log_p = log_probs(h, words)
    due = {0: [1, 3], 1: [], 2: [], 3: [1, 2]}
    for i, positions in due.items():
        nll = sum(-(1 - smoothing) * log_p[i, j, target[i, j]] - smoothing * log_p[i, j].mean() for j in positions)
        assert float(reading.nll[i]) == pytest.approx(float(nll), abs=1e-4)
    assert reading.due.tolist() == [2, 1, 1, 2]
    assert torch.equal(reading.best, log_p.argmax(-1))
    assert reading.impossible.tolist() == [False] * 4


def test_by_length_each_word_stands_at_its_own_place():
    part, (target, mask) = LengthBackEnd(SYMBOLS, 2.0), targets((4, 5), ())
    canvas = part.canvas(mask.sum(-1, keepdim=True), 4)
    expected = [[0, 1, 2, 3], [0, 1, -1, -1]]
    assert part.alignment(mask).tolist() == expected
    h, words = outputs(canvas)
    reading = part.read(h, words, target, mask, canvas, part.given(canvas, mask))
    assert reading.align().tolist() == expected


@pytest.mark.parametrize("drop", [False, True])
def test_by_length_what_is_written(drop):
    """Two candidates of each of two sentences; repeats stay unless they are to be dropped."""
    part = LengthBackEnd(SYMBOLS, 2.0)
    canvas = part.canvas(torch.tensor([[6, 4], [2, 5]]), 6)
    best = torch.tensor([[4, 4, 4, 5, 5, 4], [4, 5, 4, 4, 4, 4], [4] * 6, [5, 5, 5, 5, 5, 5]])
    h, words = saying(best)
    shown = revealing(canvas, {(0, 2): 5})
    written = part.write(h, words, canvas, shown, Finish(drop_repeats=drop), 2)
    found = [row[said].tolist() for row, said in zip(written.tokens.flatten(0, 1), written.said.flatten(0, 1))]
    expected = [[4, 5, 5, 5], [5, 4], [], [5, 5, 5]]
    assert found == ([[word for word, _ in groupby(row)] for row in expected] if drop else expected)
    assert [part.shape for part in written] == [(2, 2, 6)] * 3 + [(2, 2)]
    whole = torch.where(shown.hidden, log_probs(h, words).amax(-1).float(), shown.log_p).sum(-1)
    assert torch.allclose(total(written).flatten(), whole)


def test_what_is_written_does_not_depend_on_the_width():
    part = LengthBackEnd(SYMBOLS, 2.0)
    narrow, wide = (part.canvas(torch.tensor([[4]]), width) for width in (4, 7))
    h, words = outputs(wide)
    one, other = (
        part.write(h[:, : canvas.mask.shape[1]], words, canvas, empty(canvas), Finish(), 1) for canvas in (narrow, wide)
    )
    assert torch.equal(one.tokens[one.said], other.tokens[other.said])
    assert torch.allclose(one.log_p[one.said], other.log_p[other.said])
