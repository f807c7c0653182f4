"""What tests of beam searches share: what was found, and what a search over all sentences would find."""

from math import inf, log

import torch


def candidates(found, b):
    """[(words, log P)] of one graph, without the copies."""
    rows = zip(found.tokens[b].tolist(), found.sizes[b].tolist(), found.log_p[b].tolist())
    return [(tuple(words[:size]), log_p) for words, size, log_p in rows if log_p > -inf]


def ranked(probable, penalty, count):
    """[(words, log P)] by log P / |Y|^penalty, |Y| = words + end, from {words: P}."""
    by_score = sorted(probable, key=lambda words: -log(probable[words]) / (len(words) + 1) ** penalty)
    return [(words, log(probable[words])) for words in by_score[:count]]


def assert_same(found, expected):
    assert [words for words, _ in found] == [words for words, _ in expected]
    torch.testing.assert_close([p for _, p in found], [p for _, p in expected], rtol=1e-5, atol=1e-5)


def by_prefixes(sentences, width, penalty, longest):
    """Textbook beam search: a prefix is as likely as all sentences that begin with it."""
    beam, ends = [()], {}
    for t in range(longest + 1):
        ends.update({prefix: sentences[prefix] for prefix in beam if sentences.get(prefix)})
        longer = {words[: t + 1] for words in sentences if len(words) > t and words[:t] in beam}
        mass = {prefix: sum(p for words, p in sentences.items() if words[: t + 1] == prefix) for prefix in longer}
        beam = sorted(mass, key=mass.__getitem__, reverse=True)[:width]
    return ranked(ends, penalty, width)
