"""Beam search over a graph's sentences, against their enumeration."""

from itertools import permutations
from math import inf, log

import pytest
import torch
from beams import assert_same, by_prefixes, candidates, ranked
from graphs import all_sentences, batch_of_one, only, random_graphs
from host_looks import HostLooks

from fairseq_diffusion.alignment import beam
from fairseq_diffusion.alignment.path_beam import Vertices
from fairseq_diffusion.alignment.paths import Graph

SIZES = [6, 2, 3, 5, 4, 6]
FULL = 341  # as many sentences has a graph of six vertices and four words


def beam_search(graph, *how, **more):
    return beam.beam_search(Vertices.of(graph), *how, **more)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("listed", [4, 2])
def test_a_wide_beam_is_exhaustive(listed, penalty):
    graph = random_graphs(SIZES, listed, seed=1)
    found = beam_search(graph, FULL, 10, penalty)
    for b in range(len(SIZES)):
        sentences = all_sentences(only(graph, b))
        assert_same(candidates(found, b), ranked(sentences, penalty, FULL))
    assert len(sentences) > 30


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_narrow_beam_keeps_the_likeliest_prefixes(width, penalty):
    graph = random_graphs(SIZES * 4, seed=2)
    graph = graph._replace(log_p=graph.log_p.index_fill(1, torch.tensor(0), -3.0))  # the first word counts nowhere
    graph.log_p[torch.arange(len(graph.size)), graph.last] = 0.0  # the end is certain, so prefixes sum their sentences
    found = beam_search(graph, width, 10, penalty)
    pruned = 0
    for b in range(len(graph.size)):
        sentences = all_sentences(only(graph, b))
        expected = by_prefixes(sentences, width, penalty, 4)
        assert_same(candidates(found, b), expected)
        pruned += expected != ranked(sentences, penalty, width)
    assert width > 2 or pruned


def test_words_and_end_add_up():
    graph = random_graphs(SIZES, seed=3)
    found = beam_search(graph, 4, 10)
    beyond = torch.arange(5) > found.sizes[..., None]
    assert found.tokens.shape == (6, 4, 4) and found.word_log_p.shape == (6, 4, 5)
    assert (found.word_log_p[beyond] == 0).all() and (found.tokens[beyond[..., 1:]] == 0).all()
    real = found.log_p > -inf
    torch.testing.assert_close(found.word_log_p.sum(-1)[real], found.log_p[real])
    sentences = all_sentences(only(graph, 0))
    words = candidates(found, 0)[0][0]
    for t in range(len(words)):  # P(end | last) is in all sentences alike, so it falls out
        shares = [sum(p for s, p in sentences.items() if s[:n] == words[:n]) for n in (t, t + 1)]
        assert found.word_log_p[0, 0, t].exp() == pytest.approx(shares[1] / shares[0], rel=1e-4)


@pytest.mark.parametrize("listed", [1, 4])
def test_neither_batch_nor_padding_makes_a_difference(listed):
    graph = random_graphs(SIZES, listed, seed=4)
    graph.log_p[:, :, : listed // 2] = graph.log_p[:, :, :1]  # ties
    together = beam_search(graph, 7, 3)
    for b in range(len(SIZES)):
        alone, steps = beam_search(batch_of_one(graph, b), 7, 3), max(min(SIZES[b] - 2, 3), 0)
        assert candidates(alone, 0) == candidates(together, b)
        assert torch.equal(alone.sizes[0], together.sizes[b])
        assert torch.equal(alone.tokens[0], together.tokens[b, :, :steps])
        assert torch.equal(alone.word_log_p[0], together.word_log_p[b, :, : steps + 1])


def test_the_list_of_words_does_not_see_the_padding():
    graph = random_graphs(SIZES, 2, seed=4)
    tables = Vertices.of(graph)
    for b, size in enumerate(SIZES):
        number = tables.number[b, :size]
        assert torch.equal(number, Vertices.of(batch_of_one(graph, b)).number[0])
        assert torch.equal(tables.words[b][number], graph.tokens[b, :size])


def test_equals_go_by_their_words_whatever_the_rounding():
    shares = torch.tensor(list(permutations([0.1, 0.15, 0.25]))).T  # three vertices have six words, all as likely
    log_p = torch.cat([torch.zeros(1, 6), shares.log(), torch.zeros(1, 6)])
    links = torch.full((5, 5), -torch.inf)
    links[0, 1:4], links[1:4, 4] = log(1 / 3), 0.0
    for shift in range(6):
        order = (torch.arange(6) + shift) % 6
        graph = Graph(links, order.expand(5, 6), log_p, torch.tensor(5))
        found = beam_search(Graph(*(x[None] for x in graph)), 4, 3)
        assert [words for words, _ in candidates(found, 0)] == [(0,), (1,), (2,), (3,)]
    score = torch.tensor([[-100.0, -100 + 1e-9, -99, -100 - 1e-9]], dtype=torch.double)
    assert beam.first(score, 3).tolist() == [[2, 0, 1]]


def test_void_places_are_copies_of_the_best():
    graph = random_graphs([3, 2], listed=2, missing=0.0, seed=5)
    found = beam_search(graph, 6, 10)
    assert [len(candidates(found, b)) for b in range(2)] == [3, 1]
    assert found.sizes[1].tolist() == [0] * 6 and found.log_p[1, 0] == graph.log_p[1, 1, 0]
    for x in (found.tokens, found.sizes, found.word_log_p):
        assert torch.equal(x[0, 3:], x[0, :1].expand_as(x[0, 3:]))


def chain(words, p):
    """One way through, each vertex with one word of probability p."""
    links = torch.full((1, len(words) + 2, len(words) + 2), -torch.inf)
    links.diagonal(1, 1, 2).zero_()
    tokens = torch.tensor([8, *words, 9]).view(1, -1, 1)
    return Graph(links, tokens, torch.full(tokens.shape, log(p)), torch.tensor([len(words) + 2]))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_sentence_that_is_too_long_is_cut(width):
    found = beam_search(chain([1, 2, 3, 4, 5], 0.5), width, 3)
    assert found.tokens.tolist() == [[[1, 2, 3]] * width] and found.sizes.tolist() == [[3] * width]
    assert (found.log_p == -inf).all()
    torch.testing.assert_close(found.word_log_p.exp(), torch.tensor([0.5, 0.5, 0.5, 1.0]).expand(1, width, 4))


def test_a_word_may_repeat():
    found = beam_search(chain([1, 1, 2, 2, 2, 1], 0.5), 1, 10)
    assert candidates(found, 0)[0][0] == (1, 1, 2, 2, 2, 1)


def test_long_sentences_do_not_underflow():
    found = beam_search(chain(list(range(300)), 1e-4), 2, 400)
    assert found.sizes[0, 0] == 300
    assert float(found.log_p[0, 0]) == pytest.approx(301 * log(1e-4), rel=1e-5)


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_stopping_early_changes_nothing(penalty, monkeypatch):
    graph, extended = random_graphs([30, 14, 9, 18], seed=6, sharpness=3.0), beam.extended
    steps, look = {}, 0
    monkeypatch.setattr(beam, "extended", lambda *args: steps[look].append(1) or extended(*args))
    for one in [graph, *(batch_of_one(graph, b) for b in range(4))]:
        found = {}
        for look in (1, 3, 1000):
            steps[look] = []
            monkeypatch.setattr(beam, "CHECK_EVERY", look)
            found[look] = beam_search(one, 3, 40, penalty)
        assert len(steps[1]) <= len(steps[3]) <= len(steps[1000]) == one.links.shape[1] - 2
        for look in (1, 3):
            assert all(torch.equal(a, b) for a, b in zip(found[look], found[1000]))
    assert len(steps[1]) < len(steps[1000]) or penalty > 1


def test_the_host_looks_every_eighth_step_only():
    with HostLooks() as looks:
        beam_search(random_graphs([30, 20], seed=7), 3, 27, length_penalty=9.0)  # too much for an early stop
    assert looks.count == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(dtype):
    graph = random_graphs(SIZES, seed=8)
    graph = graph._replace(links=graph.links.to(dtype), log_p=graph.log_p.to(dtype))
    wide = graph._replace(links=graph.links.float(), log_p=graph.log_p.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = beam_search(graph, 4, 10)
    for a, b in zip(found, beam_search(wide, 4, 10)):
        assert torch.equal(a, b)
