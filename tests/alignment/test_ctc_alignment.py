"""CTC's canvas against all V^L things that can stand on it."""

from functools import lru_cache
from itertools import groupby, product

import pytest
import torch
from canvases import (
    BOS,
    EOS,
    PAD,
    SYMBOLS,
    V,
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

from fairseq_diffusion.alignment.ctc import CTCAlignment

PART = CTCAlignment(SYMBOLS, 2.0)
SENTENCES = [(), (4,), (4, 4), (4, 5), (5, 4, 5), (4, 4, 4), (5, 5, 4), (4, 5, 5, 4)]
CASES = [(words, size) for words in SENTENCES for size in (2, 3, 4, 5)]
TARGET, MASK = targets(*(words for words, _ in CASES))
CANVAS = PART.canvas(torch.tensor([[size] for _, size in CASES]), 5)
NOTHING = PART.given(CANVAS, MASK)


@lru_cache(None)
def canvases(size):
    """Everything that can stand on a canvas, [V^size, size], by what it collapses to."""
    found = {}
    for tokens in product(range(V), repeat=size):
        found.setdefault(tuple(word for word, _ in groupby(tokens) if word != BOS), []).append(tokens)
    return {words: torch.tensor(rows) for words, rows in found.items()}


def agreeing(i, log_p, index):
    """Canvases of case i that collapse to its target and agree with what is shown, and what each costs beside that."""
    words, size = CASES[i]
    rows = canvases(size).get(words, torch.zeros(0, size, dtype=torch.long))
    shown = index[i, :size] >= 0
    rows = rows[(rows[:, shown] == TARGET[i][index[i, :size][shown]]).all(-1)]
    return rows, log_p[i, torch.arange(size), rows][:, ~shown].sum(-1)


def glanced(share, seed=0):
    """Part of the best alignments, as training shows them."""
    h, words = outputs(CANVAS)
    align = PART.score(h, words, TARGET, MASK, CANVAS, NOTHING).align()
    kept = torch.rand(align.shape, generator=torch.Generator().manual_seed(seed)) < share
    return torch.where(kept, align, -1)


def anything(seed=0):
    """Columns shown anywhere, right or not."""
    g = torch.Generator().manual_seed(seed)
    column = (torch.rand(NOTHING.shape, generator=g) * (MASK.sum(-1, keepdim=True) - 1)).long()
    return torch.where(CANVAS.mask & (torch.rand(NOTHING.shape, generator=g) < 0.3), column, -1)


INDICES = {"nothing": NOTHING, "some": glanced(0.4), "most": glanced(0.8), "all": glanced(1.0), "anything": anything()}


@pytest.mark.parametrize("shown", INDICES)
def test_the_likelihood_sums_all_canvases_that_agree_with_what_is_shown(shown):
    index = INDICES[shown]
    h, words = outputs(CANVAS)
    scored = PART.score(h, words, TARGET, MASK, CANVAS, index)
    log_p = log_probs(h, words)
    costs = [agreeing(i, log_p, index)[1] for i in range(len(CASES))]
    assert scored.impossible.tolist() == [not len(cost) for cost in costs]
    expected = [-float(cost.logsumexp(0)) if len(cost) else 0 for cost in costs]
    assert scored.nll.tolist() == pytest.approx(expected, abs=1e-4)
    assert 5 < scored.impossible.sum() < 25
    assert torch.equal(scored.best, log_p.argmax(-1))


@pytest.mark.parametrize("shown", INDICES)
def test_the_alignment_is_the_best_of_those_and_keeps_what_is_shown(shown):
    index = INDICES[shown]
    h, words = outputs(CANVAS, seed=1)
    log_p = log_probs(h, words)
    align = PART.score(h, words, TARGET, MASK, CANVAS, index).align()
    for i, (sentence, size) in enumerate(CASES):
        rows, costs = agreeing(i, log_p, index)
        if not len(rows):
            assert (align[i] == -1).all()
            continue
        assert TARGET[i][align[i, :size]].tolist() == rows[costs.argmax()].tolist()
        assert (align[i, size:] == -1).all()
        columns = [column for column, _ in groupby(align[i, :size].tolist()) if column]
        assert columns == [*range(1, len(sentence) + 1)]


def test_the_loss_is_a_mean_over_the_words_alone():
    h, words = outputs(CANVAS)
    scored = PART.score(h, words, TARGET, MASK, CANVAS, INDICES["some"])
    assert scored.count.tolist() == [max(1, len(sentence)) for sentence, _ in CASES]


def test_what_is_shown_can_only_help():
    """The right words in their places, all of them: nothing is left to predict."""
    h, words = outputs(CANVAS)
    nothing, every = (PART.score(h, words, TARGET, MASK, CANVAS, INDICES[name]) for name in ("nothing", "all"))
    assert torch.equal(nothing.impossible, every.impossible)
    assert every.nll.abs().max() < 1e-6 < nothing.nll[~nothing.impossible].min()


def test_neither_padding_nor_the_batch_leaves_a_trace():
    h, words = outputs(CANVAS)
    index = INDICES["some"]
    together = PART.score(h, words, TARGET, MASK, CANVAS, index)
    for i, (sentence, size) in enumerate(CASES):
        target, mask = targets(sentence)
        canvas = PART.canvas(torch.tensor([[size]]), size)
        alone = PART.score(h[i : i + 1, :size], words, target, mask, canvas, index[i : i + 1, :size])
        assert torch.allclose(alone.nll[0], together.nll[i], atol=1e-5)
        assert torch.equal(alone.align()[0], together.align()[i, :size])


# -- reading words ----------------------------------------------------------------------------------------------------

LINES = {
    (0, 4, 4, 0, 4, 5): [4, 4, 5],  # a true repeat, and a word at the last position
    (4, 4, 4, 4, 4, 4): [4],
    (4, 0, 4, 0, 4, 0): [4, 4, 4],
    (5, 4, 5, 5, 0, 0): [5, 4, 5],
    (0, 0, 0, 0, 0, 0): [],
    (0, 0, 0, 0, 0, 4): [4],
}


def pieces(tokens, log_p):
    """Each word's log-probability with that of what follows it, up to the next; and first that of what none follows."""
    sums, before = [0.0], BOS
    for token, value in zip(tokens, log_p):
        if token not in (BOS, before):
            sums.append(0.0)
        sums[-1] += value
        before = token
    return sums


@pytest.mark.parametrize("size", [4, 6])
def test_the_words_are_those_of_the_collapsed_canvas(size):
    """Whatever stands behind the canvas; two candidates a sentence."""
    tokens = torch.tensor([*LINES])
    h, words = predicting(tokens)
    canvas = PART.canvas(torch.full((3, 2), size), 6)
    found = PART.words(h, words, canvas, empty(canvas), reading(2))
    assert [part.shape for part in found] == [(3, 2, 6)] * 3 + [(3, 2)]
    best = log_probs(h, words).amax(-1)[:, :size]
    tokens_, log_p, mask, end = (part.flatten(0, 1) for part in found)
    for i, line in enumerate(LINES):
        expected = [word for word, _ in groupby(line[:size]) if word != BOS]
        assert tokens_[i][mask[i]].tolist() == expected
        assert size < 6 or expected == LINES[line]
        first, *others = pieces(line[:size], best[i].tolist())
        assert float(end[i]) == pytest.approx(first, abs=1e-5)
        assert log_p[i][mask[i]].tolist() == pytest.approx(others, abs=1e-5)
        assert float((log_p[i] * mask[i]).sum() + end[i]) == pytest.approx(float(best[i].sum()), abs=1e-5)


def test_what_is_shown_is_read_with_the_probability_it_had():
    """A blank that is shown parts two words that would be one."""
    tokens = torch.tensor([[4, 4, 4, 0]])
    h, words = predicting(tokens)
    canvas = PART.canvas(torch.tensor([[4]]), 4)
    shown = revealing(canvas, {(0, 1): BOS, (0, 3): 5})
    found = PART.words(h, words, canvas, shown, reading())
    assert found.tokens[found.mask].tolist() == [4, 4, 5]
    best = log_probs(h, words).amax(-1)[0].tolist()
    assert found.log_p[found.mask].tolist() == pytest.approx([best[0] - 0.25, best[2], -0.25], abs=1e-5)
    assert found.end_log_p.tolist() == [[0]]


def test_the_blank_is_the_begin_of_sentence():
    """Neither the end nor padding is one: where they are likeliest, the likeliest of the others is predicted."""
    h, words = predicting(torch.tensor([[BOS, EOS, PAD, BOS]]))
    canvas = PART.canvas(torch.tensor([[4]]), 4)
    found = PART.words(h, words, canvas, empty(canvas), reading())
    best = predictable(PART, log_probs(h, words))[0].max(-1)
    assert found.tokens[found.mask].tolist() == [word for word in best.indices[1:3].tolist() if word != BOS] != []
    assert float(total(found)) == pytest.approx(float(best.values.sum()), abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("shown", [{}, {(0, 1): BOS, (0, 3): 5}])
def test_beam_search_finds_the_likeliest_sentences(penalty, shown):
    """All that four positions can read as, their alignments summed up, none of them with an end or padding."""
    canvas = PART.canvas(torch.tensor([[4]]), 4)
    h, words = outputs(canvas)
    log_p, revealed = log_probs(h, words)[0], revealing(canvas, shown)
    log_p[~revealed.hidden[0]] = 0.0
    found = {}
    for sentence, rows in canvases(4).items():
        agree = [all(row[j] == symbol for (_, j), symbol in shown.items()) for row in rows.tolist()]
        rows = rows[torch.tensor(agree) & (rows != EOS).all(-1) & (rows != PAD).all(-1)]
        if len(rows):
            found[sentence] = log_p[torch.arange(4), rows].sum(-1).logsumexp(0).item()
    best = sorted(found, key=lambda sentence: -found[sentence] / (len(sentence) + 1) ** penalty)
    assert len(best) > 9
    how = reading(path_search="beam", length_penalty=penalty, vertex_tokens=V, beam=len(best))
    beam = PART.words(h, words, canvas, revealed, how)
    cost = float(revealed.log_p[~revealed.hidden].sum())
    for k, expected in enumerate(best):
        assert beam.tokens[0, k][beam.mask[0, k]].tolist() == [*expected]
        assert float(total(beam)[0, k]) == pytest.approx(found[expected] + cost, abs=1e-4)


def test_beam_search_needs_no_blank_in_its_list():
    """With one symbol listed at each position, blanks are still as likely as they are."""
    h, words = predicting(torch.tensor([[4, 4, 5, 4]]))
    canvas = PART.canvas(torch.tensor([[4]]), 4)
    found = PART.words(h, words, canvas, empty(canvas), reading(path_search="beam", vertex_tokens=1, beam=8))
    read = {tuple(row[kept].tolist()) for row, kept in zip(found.tokens[0], found.mask[0])}
    assert read == {(), (4,), (5,), (4, 5), (5, 4), (4, 4), (4, 5, 4)}


@pytest.mark.parametrize("penalty", [-2.0, 0.7, 50.0])
@pytest.mark.parametrize("shown", [{}, {(0, 1): BOS, (0, 3): 5}])
def test_blanks_may_be_penalised(penalty, shown):
    """Where words are read, not where they are scored; what is revealed stays, and a large penalty leaves no blank."""
    canvas = PART.canvas(torch.tensor([[6]]), 6)
    h, words = outputs(canvas, seed=3)
    log_p, revealed = predictable(PART, log_probs(h, words))[0], revealing(canvas, shown)
    biased = log_p.clone()
    biased[:, BOS] -= penalty
    line, best = biased.argmax(-1).tolist(), []
    for j, symbol in enumerate(line):
        line[j] = shown.get((0, j), symbol)
        best.append(float(revealed.log_p[0, j]) if (0, j) in shown else float(log_p[j, symbol]))
    found = PART.words(h, words, canvas, revealed, reading(blank_penalty=penalty))
    expected = [word for word, _ in groupby(line) if word != BOS]
    assert found.tokens[found.mask].tolist() == expected
    assert float(total(found)) == pytest.approx(sum(best), abs=1e-5)
    plain = PART.words(h, words, canvas, revealed, reading())
    assert penalty < 50 or (BOS not in line or shown) and plain.tokens[plain.mask].tolist() != expected
