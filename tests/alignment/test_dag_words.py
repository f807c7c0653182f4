"""The words that are read off a graph, against all of its paths: each vertex has another word, so the words tell the
path."""

from itertools import pairwise, product

import pytest
import torch
from canvases import (
    EOS,
    UNK,
    dag_of,
    empty,
    log_probs,
    outputs,
    paths,
    predictable,
    predicting,
    reading,
    revealing,
    total,
)

from fairseq_diffusion.alignment.base import without_repeats
from fairseq_diffusion.alignment.dag import through
from fairseq_diffusion.alignment.paths import LISTS, SEARCHES

PART = dag_of()
WORDS = 12
GRAPH = dag_of(WORDS)
SIZES = (7, 5, 2)
BOARD = GRAPH.canvas(torch.tensor(SIZES)[:, None], 7)
TOKENS = torch.arange(4, 11).repeat(3, 1)
H, TABLE = predicting(TOKENS, WORDS)
LOG_P = log_probs(H, TABLE)
with torch.no_grad():
    LINKS = GRAPH.links(H, BOARD.mask).double()
KEYS = torch.arange(9).view(3, 3)
SHOWN = {
    "nothing": empty(BOARD),
    "some": revealing(BOARD, {(0, 2): 11, (0, 5): 11, (1, 3): 11}),
    "all": revealing(BOARD, {(i, j): 11 for i, n in ((0, 6), (1, 4)) for j in range(1, n)}),
}


def read(shown=None, keys=KEYS, graph=GRAPH, **options):
    return graph.words(H, TABLE, BOARD, shown or empty(BOARD), reading(1, keys, **options))


def words_of(i, shown):
    """What the likeliest word at each vertex costs; what is given or shown is certain."""
    return LOG_P[i].amax(-1).where(shown.hidden[i], 0.0)


def terms(i, path, shown):
    """Log-probability of each link of a path with the word it leads to."""
    words = words_of(i, shown)
    return [float(LINKS[i, a, b] + words[b]) for a, b in pairwise(path)]


def open_paths(i, shown):
    """Those that go through every vertex that is shown."""
    size = SIZES[i]
    stops = {j for j in range(size) if not shown.hidden[i, j]}
    every = [path for length in range(2, size + 1) for path in paths(size, length).tolist()]
    return [path for path in every if stops <= {*path}]


def follow(i, score, shown):
    """The path from vertex 0 to the best of `score` [n, n], and on from there, but no further than what is shown."""
    path, size = [0], SIZES[i]
    while path[-1] < size - 1:
        ahead = range(path[-1] + 1, size)
        stop = next(j for j in ahead if not shown.hidden[i, j])
        path.append(max(range(path[-1] + 1, stop + 1), key=lambda j: float(score[path[-1], j])))
    return path


def expected_path(i, search, penalty, shown):
    if search == "greedy":
        return follow(i, LINKS[i], shown)
    if search == "lookahead":
        return follow(i, LINKS[i] + 2.0 * words_of(i, shown), shown)

    def score(path):
        cost = [float(LINKS[i, a, b]) for a, b in pairwise(path)] if search == "viterbi" else terms(i, path, shown)
        return sum(cost) / len(cost) ** penalty

    return max(open_paths(i, shown), key=score)


@pytest.mark.parametrize("search", sorted({*SEARCHES} - {*LISTS}))
@pytest.mark.parametrize("penalty", [1.0, 3.0])
@pytest.mark.parametrize("what", SHOWN)
def test_each_search_reads_its_path_through_what_is_shown(search, penalty, what):
    """Words with links into them; the end has what is left.  What is shown costs its link there, and in the end what it
    cost when it was revealed."""
    shown = SHOWN[what]
    found = read(shown, path_search=search, lookahead_weight=2.0, length_penalty=penalty)
    assert [part.shape for part in found] == [(3, 1, 7)] * 3 + [(3, 1)]
    for i in range(3):
        mask, path = found.mask[i, 0], expected_path(i, search, penalty, shown)
        tokens = torch.where(shown.hidden, TOKENS, shown.tokens)[i]
        assert found.tokens[i, 0][mask].tolist() == tokens[path[1:-1]].tolist()
        *words, end = terms(i, path, shown)
        end += float(shown.log_p[i][~shown.hidden[i]].sum())
        assert found.log_p[i, 0][mask].tolist() == pytest.approx(words, abs=1e-4)
        assert float(found.end_log_p[i, 0]) == pytest.approx(end, abs=1e-4)
        assert torch.equal(mask, torch.arange(7) < mask.sum())


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("listed", [1, 4])
def test_every_translation_has_every_word_that_is_shown(search, listed):
    """In its place; without them some paths would pass by."""
    shown = revealing(BOARD, {(0, 2): 2, (0, 4): 1, (1, 3): 2})  # which no vertex predicts
    found = read(shown, torch.arange(120).view(3, 40), path_search=search, vertex_tokens=listed, beam=8)
    for i, words in ((0, [2, 1]), (1, [2])):
        for tokens, mask in zip(found.tokens[i], found.mask[i]):
            assert [word for word in tokens[mask].tolist() if word in (1, 2)] == words
    unguided = read(keys=torch.arange(120).view(3, 40), path_search=search, vertex_tokens=listed, beam=8)
    assert search not in LISTS or len({*unguided.mask[0].sum(-1).tolist()}) > 2


def test_links_that_pass_by_what_is_shown_are_closed():
    g = torch.Generator().manual_seed(0)
    links, shown = torch.rand(20, 6, 6, generator=g), torch.rand(20, 6, generator=g) < 0.3
    found = through(links, shown)
    for b, i, j in product(range(20), range(6), range(6)):
        passed = shown[b, i + 1 : j].any()
        assert found[b, i, j] == (-torch.inf if passed else links[b, i, j])


@pytest.mark.parametrize("count", [1, 3])
def test_samples_are_candidates_that_know_their_probability(count):
    """With one word listed a sentence is a path, with several a vertex may have any of them."""
    drawn = read(keys=torch.arange(600).view(3, 200), path_search="sample", vertex_tokens=count)
    assert drawn.tokens.shape == (3, 200, 7)
    found = {}
    for tokens, mask, value in zip(drawn.tokens[1], drawn.mask[1], total(drawn)[1]):
        found.setdefault(tuple(tokens[mask].tolist()), []).append(float(value))
    if count > 1:
        listed = [set(words) for words in predictable(GRAPH, LOG_P)[1, 1:4].topk(3).indices.tolist()]
        assert all(any(word in words for words in listed) for sentence in found for word in sentence)
        assert any(word not in range(4, 11) for sentence in found for word in sentence)
        return
    for path in open_paths(1, SHOWN["nothing"]):
        values = found.pop(tuple(TOKENS[1, j].item() for j in path[1:-1]), [])
        p_links = sum(LINKS[1, a, b] for a, b in pairwise(path)).exp()
        assert len(values) / 200 == pytest.approx(float(p_links), abs=0.1)
        assert values == pytest.approx([sum(terms(1, path, SHOWN["nothing"]))] * len(values), abs=1e-4)
    assert not found


def test_cold_samples_are_greedy():
    greedy = read(path_search="greedy")
    for part, expected in zip(read(path_search="sample", temperature=1e-3), greedy):
        assert torch.equal(part, expected.expand(part.shape))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("guided", [False, True])
def test_beam_search_finds_the_likeliest_sentences(penalty, guided):
    """All sentences of a graph with two inner vertices, specials left out, and their paths summed up; and if its first
    inner vertex is shown to be UNK."""
    canvas = PART.canvas(torch.tensor([[4]]), 4)
    h, words = outputs(canvas)
    with torch.no_grad():
        links, p = PART.links(h, canvas.mask)[0].double().exp(), log_probs(h, words)[0].exp()
    first, found = (UNK, 4, 5), {(): links[0, 3]}
    if guided:
        first, found, links[0, 2], p[1] = (UNK,), {}, 0.0, 1.0
    for a in (UNK, 4, 5):
        found[(a,)] = links[0, 1] * p[1, a] * links[1, 3] * (a in first) + links[0, 2] * p[2, a] * links[2, 3]
        found |= {(b, a): links[0, 1] * p[1, b] * links[1, 2] * p[2, a] * links[2, 3] for b in first}
    found = {sentence: p for sentence, p in found.items() if p > 0}
    best = sorted(found, key=lambda sentence: -found[sentence].log() / (len(sentence) + 1) ** penalty)
    how = reading(path_search="beam", length_penalty=penalty, vertex_tokens=6, beam=len(best))
    shown = revealing(canvas, {(0, 1): UNK}) if guided else empty(canvas)
    beam = PART.words(h, words, canvas, shown, how)
    assert len(best) == (4 if guided else 13) == beam.tokens.shape[1]
    for k, expected in enumerate(best):
        assert beam.tokens[0, k][beam.mask[0, k]].tolist() == [*expected]
        cost = float(shown.log_p[~shown.hidden].sum())
        assert float(total(beam)[0, k]) == pytest.approx(float(found[expected].log()) + cost, abs=1e-4)


def test_beam_search_takes_listed_words_and_no_more_than_the_longest_translation_has():
    shortest, longest = (
        read(graph=dag_of(WORDS, longest=n), path_search="beam", beam=3, vertex_tokens=1) for n in (1, 256)
    )
    assert longest.tokens.shape[:2] == (3, 3)
    assert shortest.mask.sum(-1).max() == 1 < longest.mask.sum(-1).max()
    assert set(longest.tokens[longest.mask].tolist()) <= set(range(4, 11))


@pytest.mark.parametrize("search", ["lookahead", "joint_viterbi", "beam"])
def test_searches_that_weigh_words_go_round_special_symbols(search):
    """A vertex that would predict one gives little to any other word."""
    h, words = predicting(torch.where(TOKENS % 2 == 1, EOS, TOKENS), WORDS)
    h = h + 6 * (h == h.amax(-1, keepdim=True))
    how = reading(path_search=search, lookahead_weight=9.0, vertex_tokens=1, length_penalty=2.0)
    found = GRAPH.words(h, words, BOARD, empty(BOARD), how)
    tokens = found.tokens[:, 0][found.mask[:, 0]].tolist()
    assert tokens and {*tokens} <= {4, 6, 8, 10}


@pytest.mark.parametrize("search", SEARCHES)
def test_nothing_else_is_listed_where_a_word_is_shown(search):
    several, alone = (read(SHOWN["all"], path_search=search, vertex_tokens=n, beam=3) for n in (3, 1))
    assert set(several.tokens[several.mask].tolist()) == {11}
    assert torch.equal(several.log_p, alone.log_p)


@pytest.mark.parametrize("search", SEARCHES)
def test_repeats_stay_unless_they_are_to_be_dropped(search):
    """All vertices of the first graph have one word, those of others different ones.  The log-probability of what is
    gone goes to the end, so no translation is more or less likely for it."""
    shown = revealing(BOARD, {(0, j): 11 for j in range(1, 6)})
    how = {"path_search": search, "vertex_tokens": 1, "beam": 4}
    kept = read(shown, **how)
    dropped = without_repeats(kept)
    assert torch.equal(kept.tokens, dropped.tokens)
    assert (kept.mask[0].sum(-1) == 5).all() and (dropped.mask[0].sum(-1) == 1).all()
    assert torch.equal(dropped.mask[1:], kept.mask[1:])
    assert torch.allclose(total(dropped), total(kept), atol=1e-5)
    assert torch.equal(dropped.end_log_p[1:], kept.end_log_p[1:])


def test_a_guess_is_the_path_of_the_likeliest_links():
    """It goes through what is shown; there is nothing to reveal at the ends or off the path."""
    for shown in SHOWN.values():
        guess = GRAPH.guess(H, TABLE, BOARD, shown)
        assert torch.equal(guess.tokens, torch.where(shown.hidden, TOKENS, shown.tokens))
        expected = LOG_P.amax(-1).float().where(shown.hidden, shown.log_p)
        assert torch.allclose(guess.log_p, expected, atol=1e-5)
        for i in range(3):
            path = follow(i, LINKS[i], shown)
            assert guess.predicted[i].nonzero()[:, 0].tolist() == path[1:-1]
