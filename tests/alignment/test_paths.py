"""Path searches against enumeration of all paths, and against a walk vertex by vertex."""

from itertools import product

import pytest
import torch
from graphs import all_paths, batch_of_one, link_log_p, only, random_graphs
from host_looks import HostLooks

from fairseq_diffusion.alignment.paths import PATHS, Graph, SearchOptions
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise

SIZES = [6, 2, 3, 5, 4, 6, 6, 5, 6]
KEYS = noise.fold(torch.arange(len(SIZES))[:, None], torch.arange(3))


def search(name, graph, keys=KEYS, **options):
    return PATHS[name](graph, SearchOptions(**options), keys)


def vertices(path, b, k=0):
    return tuple(path.on[b, k].nonzero()[:, 0].tolist())


def walked(graph, beta):
    """Vertex by vertex, with an argmax at each; one graph."""
    at, path = 0, [0]
    while at < int(graph.size) - 1:
        score = [float(graph.links[at, j]) + beta * float(graph.log_p[j, 0]) for j in range(at + 1, int(graph.size))]
        at += 1 + max(range(len(score)), key=score.__getitem__)
        path.append(at)
    return tuple(path)


def best_of_all(graph, joint, penalty):
    """The path of the largest score by its length, among all of one graph."""

    def score(path):
        words = [float(graph.log_p[j, 0]) * joint for j in path[1:]]
        return (sum(link_log_p(graph, path)) + sum(words)) / (len(path) - 1) ** penalty

    return max(all_paths(graph), key=score)


def test_the_names_and_what_they_need():
    assert list(PATHS) == ["greedy", "joint_viterbi", "lookahead", "sample", "viterbi"]
    with pytest.raises(UserError, match="temperature"):
        SearchOptions(temperature=0.0)
    with pytest.raises(ValueError, match="keys"):
        search("sample", random_graphs([3]), keys=None)


@pytest.mark.parametrize("beta", [None, 0.0, 1.0, 3.0])
def test_local_choices_are_a_walk(beta):
    graph = random_graphs([*range(2, 20), 33], listed=2, seed=1)
    name = "greedy" if beta is None else "lookahead"
    found = search(name, graph, lookahead_weight=beta or 0.0)
    expected = [walked(only(graph, b), beta or 0.0) for b in range(len(graph.size))]
    assert [vertices(found, b) for b in range(len(graph.size))] == expected
    assert len(set(map(len, expected))) > 3  # not all of a kind


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_lookahead_goes_round_a_vertex_whose_word_is_impossible(beta):
    """Where words weigh nothing it goes as if they were not there."""
    graph = random_graphs([6] * 20, listed=1, missing=0.0, seed=10)
    graph.log_p[:, [2, 3]] = -torch.inf
    found = search("lookahead", graph, lookahead_weight=beta)
    reached = found.on[:, 0, [2, 3]].any(-1)
    assert not reached.any() if beta else torch.equal(found.on, search("greedy", graph).on)
    assert torch.equal(found.log_p.sum(-1)[:, 0] == -torch.inf, reached) and (beta or reached.any())


def test_every_length_is_walked_to_its_end():
    sizes = list(range(2, 36))
    links = torch.full((len(sizes), 35, 35), -torch.inf)
    links.diagonal(1, 1, 2).zero_()  # a chain
    words = torch.zeros(len(sizes), 35, 1)
    graph = Graph(links, words.long(), words, torch.tensor(sizes))
    for name in PATHS:
        on = search(name, graph, torch.zeros(len(sizes), 1).long()).on[:, 0]
        assert torch.equal(on, torch.arange(35) < graph.size[:, None]), name


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("name", ["viterbi", "joint_viterbi"])
def test_viterbi_is_the_best_of_all_paths(name, penalty):
    graph = random_graphs(SIZES * 4, listed=2, seed=2)
    found = search(name, graph, length_penalty=penalty)
    for b in range(len(graph.size)):
        assert vertices(found, b) == best_of_all(only(graph, b), name == "joint_viterbi", penalty)


@pytest.mark.parametrize("name", list(PATHS))
def test_a_path_tells_its_words_and_probabilities(name):
    graph = random_graphs(SIZES, seed=3)
    found = search(name, graph, temperature=2.0)
    assert found.on.shape[1] == (3 if name == "sample" else 1)
    assert (found.log_p[~found.on] == 0).all()
    for b, k in product(range(len(SIZES)), range(found.on.shape[1])):
        one, path = only(graph, b), vertices(found, b, k)
        words = found.tokens[b, k][found.on[b, k]].tolist()
        at = [one.tokens[j].tolist().index(w) for j, w in zip(path, words)]
        expected = [float(one.log_p[j, w]) + link for j, w, link in zip(path, at, [0.0, *link_log_p(one, path)])]
        torch.testing.assert_close(found.log_p[b, k][found.on[b, k]], torch.tensor(expected))
        assert name == "sample" or set(at) == {0}


@pytest.mark.parametrize("name", list(PATHS))
def test_neither_batch_nor_padding_makes_a_difference(name):
    graph = random_graphs(SIZES, listed=2, seed=4)
    together = search(name, graph)
    for b, size in enumerate(SIZES):
        alone = search(name, batch_of_one(graph, b), KEYS[b : b + 1])
        assert not together.on[b, :, size:].any()
        for a, t in zip(alone, together):
            on = alone.on[0]
            assert torch.equal(a[0][on], t[b, :, :size][on])


@pytest.mark.parametrize("name", list(PATHS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(name, dtype):
    graph = random_graphs(SIZES, seed=5)
    graph = graph._replace(links=graph.links.to(dtype), log_p=graph.log_p.to(dtype))
    wide = graph._replace(links=graph.links.float(), log_p=graph.log_p.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = search(name, graph)
    assert found.log_p.dtype == torch.float32
    for a, b in zip(found, search(name, wide)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", list(PATHS))
def test_the_host_does_not_look(name):
    with HostLooks() as looks:
        search(name, random_graphs(SIZES, seed=6))
    assert looks.count == 0


@pytest.mark.parametrize("name", list(PATHS))
def test_a_graph_without_a_way_says_so(name):
    graph = random_graphs([4, 4], seed=7)
    graph.links[0, :3, 3] = -torch.inf
    found = search(name, graph, KEYS[:2])
    log_p = found.log_p.sum(-1)
    assert found.on[:, :, [0, 3]].all()
    assert (log_p[0] == -torch.inf).all() and log_p[1].isfinite().all()


def test_a_word_may_repeat():
    graph = random_graphs([4], missing=0.0, seed=8)
    graph.links[0, 0, 1] = graph.links[0, 1, 2] = 0.0
    graph.links[0, 0, 2:] = graph.links[0, 1, 3] = -torch.inf
    graph.tokens[0, :, 0] = torch.tensor([8, 7, 7, 9])
    for name in ("greedy", "lookahead", "viterbi", "joint_viterbi"):
        found = search(name, graph, None)
        assert found.tokens[found.on].tolist() == [8, 7, 7, 9]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_samples_come_as_often_as_they_are_likely(temperature):
    draws, graph = 20000, random_graphs([5], listed=2, seed=9)
    found = search("sample", graph, torch.arange(draws)[None], temperature=temperature)
    one = only(graph, 0)
    links = (one.links / temperature).masked_fill(one.links.isnan(), -torch.inf).softmax(-1)
    words = (one.log_p / temperature).softmax(-1)  # the two listed of four
    expected, seen = [], []
    for path in all_paths(one):
        on = found.on[0].int().eq(torch.zeros(5).int().index_fill(0, torch.tensor(path), 1)).all(-1)
        for chosen in product(range(2), repeat=len(path)):
            p = [links[i, j] for i, j in zip(path, path[1:])] + [words[j, w] for j, w in zip(path, chosen)]
            tokens = torch.stack([one.tokens[j, w] for j, w in zip(path, chosen)])
            expected.append(draws * float(torch.stack(p).prod()))
            seen.append(int((on & (found.tokens[0][:, path] == tokens).all(-1)).sum()))
    expected, seen = torch.tensor(expected), torch.tensor(seen)
    assert seen.sum() == draws and (seen[expected == 0] == 0).all()
    common = expected > 5
    statistic, freedom = ((seen - expected).square() / expected)[common].sum(), int(common.sum()) - 1
    assert freedom > 10 and statistic < freedom + 4 * (2 * freedom) ** 0.5
