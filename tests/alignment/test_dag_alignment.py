"""The graph's likelihoods against all of its paths, with the projection's and the links' own probabilities."""

import pytest
import torch
from canvases import dag_of, log_probs, outputs, paths, targets

from fairseq_diffusion.alignment.dag import forced

PART = dag_of()
SENTENCES = [(), (4,), (4, 4), (4, 5), (5, 4, 5), (4, 4, 4, 5)]
CASES = [(words, size) for words in SENTENCES for size in (2, 3, 5, 7)]
TARGET, MASK = targets(*(words for words, _ in CASES))
CANVAS = PART.canvas(torch.tensor([[size] for _, size in CASES]), 7)
GIVEN = PART.given(CANVAS, MASK)


def agreeing(i, log_p, links, index):
    """Paths of case i through what is shown and nowhere else with those words, and what each costs beside that."""
    length, size = int(MASK[i].sum()), CASES[i][1]
    found, t = paths(size, length), torch.arange(length)
    shown = {int(column): j for j, column in enumerate(index[i, :size]) if column >= 0}
    for column, j in shown.items():
        found = found[found[:, column] == j] if column < length else found[:0]
    free = torch.tensor([int(column) not in shown for column in t])
    words = log_p[i, found, TARGET[i, :length]][:, free].sum(-1)
    return found, words + links[i, found[:, :-1], found[:, 1:]].sum(-1)


def glanced(share, seed=0):
    """Part of the best paths, as training shows them, and the ends."""
    h, words = outputs(CANVAS)
    align = PART.score(h, words, TARGET, MASK, CANVAS, GIVEN).align()
    kept = torch.rand(align.shape, generator=torch.Generator().manual_seed(seed)) < share
    return torch.where(kept, align, GIVEN)


def anything(seed=0):
    """One inner word shown at some inner vertex, whether it can stand there or not."""
    g, index = torch.Generator().manual_seed(seed), GIVEN.clone()
    for i, (words, size) in enumerate(CASES):
        if words and size > 2:
            j, t = (int(torch.randint(1, n, (), generator=g)) for n in (size - 1, len(words) + 1))
            index[i, j] = t
    return index


INDICES = {
    "nothing": torch.full_like(GIVEN, -1),
    "ends": GIVEN,
    "some": glanced(0.5),
    "all": glanced(1.0),
    "anything": anything(),
}


@pytest.mark.parametrize("shown", INDICES)
@torch.no_grad()
def test_the_likelihood_sums_all_paths_through_what_is_shown(shown):
    """It is of all words, begin and end included, which cost nothing where they are given."""
    index = INDICES[shown]
    h, words = outputs(CANVAS)
    scored = PART.score(h, words, TARGET, MASK, CANVAS, index)
    log_p, links = log_probs(h, words), PART.links(h, CANVAS.mask).double()
    costs = [agreeing(i, log_p, links, index)[1] for i in range(len(CASES))]
    assert scored.impossible.tolist() == [not len(cost) for cost in costs]
    expected = [-float(cost.logsumexp(0)) if len(cost) else 0 for cost in costs]
    assert scored.nll.tolist() == pytest.approx(expected, abs=1e-4)
    assert 5 < scored.impossible.sum() < 18
    assert torch.equal(scored.best, log_p.argmax(-1))
    assert torch.equal(scored.count, MASK.sum(-1))


@pytest.mark.parametrize("shown", INDICES)
@torch.no_grad()
def test_the_alignment_is_the_best_of_those_paths(shown):
    index = INDICES[shown]
    h, words = outputs(CANVAS, seed=1)
    log_p, links = log_probs(h, words), PART.links(h, CANVAS.mask).double()
    align = PART.score(h, words, TARGET, MASK, CANVAS, index).align()
    for i in range(len(CASES)):
        found, costs = agreeing(i, log_p, links, index)
        expected = torch.full((7,), -1)
        if len(found):
            best = found[costs.argmax()]
            expected[best] = torch.arange(len(best))
            assert torch.equal(expected[index[i] >= 0], index[i][index[i] >= 0])
        assert torch.equal(align[i], expected)


def test_forced_words_are_free_at_their_vertex_and_impossible_elsewhere():
    match = -torch.arange(1.0, 13).view(1, 3, 4)
    found = forced(match, torch.tensor([[-1, -1, 1, -1]]))[0]
    no = -torch.inf
    assert found.tolist() == [[-1, -2, no, -4], [no, no, 0, no], [-9, -10, no, -12]]


def test_gradient_of_a_forced_likelihood_is_finite():
    h, words = outputs(CANVAS)
    h.requires_grad_()
    PART.score(h, words, TARGET, MASK, CANVAS, INDICES["anything"]).nll.sum().backward()
    assert h.grad.isfinite().all() and (h.grad != 0).any()
    assert (h.grad[~CANVAS.mask] == 0).all()


def test_neither_padding_nor_the_batch_leaves_a_trace():
    together = PART.score(*outputs(CANVAS), TARGET, MASK, CANVAS, INDICES["some"])
    h, words = outputs(CANVAS)
    for i, (sentence, size) in enumerate(CASES):
        target, mask = targets(sentence)
        canvas = PART.canvas(torch.tensor([[size]]), size)
        alone = PART.score(h[i : i + 1, :size], words, target, mask, canvas, INDICES["some"][i : i + 1, :size])
        assert torch.allclose(alone.nll[0], together.nll[i], atol=1e-5)
        assert torch.equal(alone.align()[0], together.align()[i, :size])
