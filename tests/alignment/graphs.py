"""Small graphs of words, all their sentences, and how probable each is: by enumeration, in Python."""

from __future__ import annotations

from collections import Counter
from itertools import chain, combinations, product
from math import exp

import torch

from fairseq_diffusion.alignment.paths import Graph

WORDS = 4  # of the vocabulary


def random_graphs(sizes, listed=WORDS, seed=0, missing=0.3, sharpness=1.0):
    """Graphs of these sizes, some links missing, with garbage wherever nobody should look."""
    made, vertices = torch.Generator().manual_seed(seed), max(sizes)
    size, vertex = torch.tensor(sizes), torch.arange(vertices)
    ahead = (vertex > vertex[:, None]) & (vertex < size[:, None, None])
    links = torch.randn(len(sizes), vertices, vertices, generator=made).mul(sharpness)
    gone = torch.rand(links.shape, generator=made) < missing
    links = links.masked_fill(gone & (vertex != vertex[:, None] + 1), -torch.inf)
    links = links.masked_fill(~ahead, -torch.inf).log_softmax(-1).masked_fill(~ahead, torch.nan)
    words = torch.randn(len(sizes), vertices, WORDS, generator=made).mul(sharpness).log_softmax(-1)
    log_p, tokens = words.topk(listed)
    padding = (vertex >= size[:, None])[..., None]
    return Graph(links, tokens.masked_fill(padding, -1), log_p.masked_fill(padding, torch.nan), size)


def only(graph, b):
    """The b-th graph, without padding."""
    size = int(graph.size[b])
    return Graph(graph.links[b, :size, :size], graph.tokens[b, :size], graph.log_p[b, :size], graph.size[b])


def batch_of_one(graph, b):
    return Graph(*(x[None] for x in only(graph, b)))


def all_paths(graph):
    """Every (0, ..., last) of one graph, possible or not."""
    inner = range(1, int(graph.size) - 1)
    subsets = chain.from_iterable(combinations(inner, count) for count in range(len(inner) + 1))
    return [(0, *subset, int(graph.size) - 1) for subset in subsets]


def link_log_p(graph, path):
    """log E of each link of a path of one graph."""
    return [float(graph.links[i, j]) for i, j in zip(path, path[1:])]


def all_sentences(graph):
    """{words: P} of all sentences of one graph's listed words, paths summed out."""
    found, p, words = Counter(), graph.log_p.double().exp().tolist(), graph.tokens.tolist()
    for path in all_paths(graph):
        p_links = exp(sum(link_log_p(graph, path))) * p[path[-1]][0]
        for chosen in product(range(graph.tokens.shape[-1]), repeat=len(path) - 2):
            p_path = p_links
            for j, w in zip(path[1:-1], chosen):
                p_path *= p[j][w]
            found[tuple(words[j][w] for j, w in zip(path[1:-1], chosen))] += p_path
    return {sentence: p for sentence, p in found.items() if p > 0}
