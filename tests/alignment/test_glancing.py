"""How much is revealed and where: counts to the word, subsets each as often, nothing that depends on the batch."""

import math
from collections import Counter

import pytest
import torch

from fairseq_diffusion.alignment.glancing import (
    COUNTS,
    KEEPS,
    Boundary,
    Glance,
    choose,
    keep_schedule,
    ranks,
    surest,
)
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise

KEYS = noise.fold(torch.arange(40), 7)


def some(rows=40, width=9, share=0.6, seed=0):
    """Positions that may be chosen, and how many are asked for, more than there are among them."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(rows, width, generator=g) < share, torch.randint(width + 2, (rows,), generator=g)


# -- how much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, expected",
    [("linear", [0, 0.25, 0.5, 0.75, 1]), ("cosine", [0, 0.0761, 0.2929, 0.6173, 1]), ("none", [0, 0, 0, 0, 1])],
)
def test_keep_schedules(name, expected):
    assert keep_schedule(name, 4) == pytest.approx(expected, abs=1e-4)
    assert keep_schedule(name, 1) == [0, 1]
    assert len(keep_schedule(name, 6)) == 7


@pytest.mark.parametrize("table, name", [(KEEPS, "linear"), (COUNTS, "adaptive")])
def test_unknown_names_are_explained(table, name):
    with pytest.raises(UserError, match=f"'all'.*{name}"):
        table["all"]


def test_the_share_goes_in_a_straight_line():
    glance = Glance(start=0.5, end=0.3, updates=100)
    assert [glance.ratio(u) for u in (0, 25, 100, 10**9)] == pytest.approx([0.5, 0.45, 0.3, 0.3])


@pytest.mark.parametrize("blocks", [1, 2, 4, 6])
@pytest.mark.parametrize("two_pass", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_what_is_hidden_after_all_boundaries_does_not_depend_on_how_many(blocks, two_pass, rho):
    glance = Glance(start=rho, end=rho, blocks=blocks, two_pass=two_pass)
    boundaries = range(glance.first, blocks)
    left = math.prod(1 - glance.share(0) for _ in boundaries)
    assert left == pytest.approx(1 - rho if len(boundaries) else 1)
    assert glance.share(0) == 0 or len(boundaries)


@pytest.mark.parametrize(
    "count, two_pass, first",
    [("adaptive", False, 1), ("adaptive", True, 0), ("schedule", False, 1), ("schedule", True, 0)]
    + [("uniform", False, 0), ("uniform", True, 0)],
)
def test_the_first_boundary_needs_a_pass_that_says_what_is_wrong(count, two_pass, first):
    assert Glance(count, two_pass=two_pass).first == first


@pytest.mark.parametrize("keep", ["linear", "cosine", "none"])
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_hazards_make_up_the_schedule(keep, blocks):
    glance = Glance("schedule", blocks=blocks, keep=keep)
    kappa, hidden = keep_schedule(keep, blocks), 1.0
    for s in range(blocks + 1):
        hidden *= 1 - glance.hazard(s)
        assert 1 - hidden == pytest.approx(kappa[s])


# -- where ------------------------------------------------------------------------------------------------------------


def test_ranks_are_places_in_a_stable_order():
    x = torch.randint(4, (50, 7), generator=torch.Generator().manual_seed(0)).float()
    for row, found in zip(x.tolist(), ranks(x).tolist()):
        order = sorted(range(7), key=lambda i: (-row[i], i))
        assert [order.index(i) for i in range(7)] == found


def test_chosen_are_as_many_as_asked_for_from_those_allowed():
    among, count = some()
    chosen = choose(among, count, KEYS)
    assert (chosen <= among).all()
    assert torch.equal(chosen.sum(-1), torch.minimum(count, among.sum(-1)))
    assert (count == 0).any() and (count > among.sum(-1)).any()


def test_each_subset_is_chosen_as_often():
    keys = noise.fold(torch.arange(6000), 1)
    among = torch.tensor([True, False, True, True, True]).expand(6000, -1)
    found = Counter(map(tuple, choose(among, torch.full((6000,), 2), keys).long().tolist()))
    assert sorted(found.values()) == pytest.approx([1000] * 6, abs=130)


def test_what_is_chosen_depends_on_the_sentence_alone():
    among, count = some()
    together = choose(among, count, KEYS)
    wider = torch.cat([among, torch.zeros_like(among)], 1)
    assert torch.equal(choose(wider, count, KEYS)[:, :9], together)
    assert torch.equal(choose(among[5:6], count[5:6], KEYS[5:6]), together[5:6])
    assert not torch.equal(choose(among, count, noise.fold(KEYS, 1)), together)


def test_surest_are_the_largest_and_of_equals_the_first():
    among, count = some(seed=1)
    log_p = -torch.randint(4, among.shape, generator=torch.Generator().manual_seed(2)).float()
    found = surest(log_p, among, count)
    for row, allowed, number, chosen in zip(log_p.tolist(), among.tolist(), count.tolist(), found):
        best = sorted((i for i in range(9) if allowed[i]), key=lambda i: (-row[i], i))[:number]
        assert chosen.nonzero()[:, 0].tolist() == sorted(best)


def test_what_is_certain_already_comes_first():
    """Revealed words are kept by an infinite score."""
    log_p = torch.tensor([[-1.0, torch.inf, -0.5, torch.inf]])
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    assert surest(log_p, everywhere, torch.tensor([3])).tolist() == [[False, True, True, True]]


# -- glancing ---------------------------------------------------------------------------------------------------------


def boundary(hidden, wrong=None, s=1, remainder=0.0):
    keys = noise.fold(torch.arange(len(hidden)), s)
    return Boundary(s, hidden, hidden if wrong is None else wrong, keys, torch.full(keys.shape, remainder).double())


@pytest.mark.parametrize("source", ["wrong", "any"])
@pytest.mark.parametrize("rho, remainder", [(0.0, 0.0), (0.3, 0.0), (0.5, 0.0), (1.0, 0.0), (0.3, 0.75), (1.0, 0.75)])
def test_adaptive_shows_a_share_of_the_number_of_wrong_words(source, rho, remainder):
    """And the remainder, rounded down; what is left is the next remainder."""
    hidden, _ = some(share=0.8)
    wrong = hidden & some(share=0.5, seed=3)[0]
    chosen, rest = Glance(source=source, start=rho, end=rho, blocks=2)(boundary(hidden, wrong, remainder=remainder), 0)
    due = [rho * n + remainder for n in wrong.sum(-1).tolist()]
    assert chosen.sum(-1).tolist() == [math.floor(number) for number in due]
    assert (chosen.sum(-1) + rest).tolist() == pytest.approx(due)
    assert (chosen <= (wrong if source == "wrong" else hidden)).all()
    if source == "any" and rho:
        assert (chosen & ~wrong).any()


def test_a_share_that_comes_to_a_whole_number_is_not_rounded_down():
    """0.29 * 100 is 28.999999999999996."""
    hidden = torch.ones(1, 100, dtype=torch.bool)
    counts = [int(Glance(start=k / 100, blocks=2)(boundary(hidden), 0)[0].sum()) for k in range(101)]
    assert counts == [*range(101)]


def test_what_is_rounded_off_at_all_boundaries_is_less_than_a_word():
    """A fifth of a few wrong words, five times, when the model is always wrong about what is hidden."""
    hidden = torch.arange(8) < torch.arange(1, 9)[:, None]
    glance, rest, due = Glance(start=0.5, blocks=6), torch.zeros(8).double(), torch.zeros(8).double()
    for s in range(1, 6):
        due += hidden.sum(-1) * glance.share(0)
        chosen, rest = glance(boundary(hidden, s=s)._replace(remainder=rest), 0)
        hidden = hidden & ~chosen
        assert torch.equal(torch.arange(1, 9) - hidden.sum(-1), (due + 1e-9).long())
    assert (hidden.sum(-1) < torch.arange(1, 9))[1:].all()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("s", [0, 1])
def test_only_hidden_words_are_shown(count, s):
    hidden, _ = some()
    hidden[0] = False
    wrong = hidden & some(seed=3)[0]
    chosen, rest = Glance(count, "any", 0.9, 0.9, blocks=2, two_pass=True)(boundary(hidden, wrong, s, 0.25), 0)
    assert (chosen <= hidden).all()
    assert chosen.any() or (count, s) in {("schedule", 0), ("uniform", 1)}
    assert count == "adaptive" or (rest == 0.25).all()


@pytest.mark.parametrize("keep", ["linear", "cosine", "none"])
def test_by_schedule_a_word_is_shown_with_the_processs_probability(keep):
    glance, shown = Glance("schedule", blocks=4, keep=keep), torch.zeros(4000, 2, dtype=torch.bool)
    for s, kappa in enumerate(keep_schedule(keep, 4)[:4]):
        shown |= glance(boundary(~shown, torch.zeros_like(shown), s), 0)[0]
        assert shown.double().mean(0).tolist() == pytest.approx([kappa] * 2, abs=0.03)


def test_uniform_hides_any_number_and_then_any_subset():
    """Of 3 words 0, 1 or 2 are shown, each with 1/3; which ones has nothing to do with how many."""
    hidden = torch.tensor([True, False, True, True, False]).expand(9000, -1)
    found = Counter(map(tuple, Glance("uniform")(boundary(hidden, s=0), 0)[0].long().tolist()))
    expected = {(a, 0, b, c, 0): 3000 / (1, 3, 3)[a + b + c] for a, b, c in SUBSETS}
    assert dict(found) == pytest.approx(expected, abs=200)


SUBSETS = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1) if a + b + c < 3]
