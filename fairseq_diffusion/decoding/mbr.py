"""Choosing among candidates by minimum Bayes risk with sentence BLEU (Kumar and Byrne 2004).

The candidate returned is the one most like the others: argmax_i 1/(K-1) sum_{j != i} BLEU(hypothesis i, reference j).
A candidate is any sequence of hashable tokens: words, or plain integers (a tensor's `.tolist()`, not its elements).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from fairseq_diffusion.decoding.ngrams import MAX_ORDER, PairStatistics, pair_statistics

Candidate = Sequence[Hashable]

TIE_DECIMALS = 9  # scores that agree to here are equal: the rest is the order in which floats were added


def bleu_matrix(candidates: Sequence[Candidate], effective_order: bool = True) -> np.ndarray:
    """Sentence BLEU (0..100) of each of K candidates as hypothesis (row) against each as reference (column): [K, K].

    Equals sacreBLEU with ``smooth_method="exp"`` and ``tokenize="none"`` on the tokens joined by spaces. With
    `effective_order` orders longer than the hypothesis are left out (sacreBLEU's setting for single sentences); without
    it, a hypothesis of fewer than four tokens scores 0.
    """
    numbers: dict[tuple[Hashable, ...], int] = {}
    number = [numbers.setdefault(tuple(candidate), len(numbers)) for candidate in candidates]
    return bleu_from_statistics(pair_statistics(list(numbers)), effective_order)[np.ix_(number, number)]


def bleu_from_statistics(statistics: PairStatistics, effective_order: bool) -> np.ndarray:
    """BLEU = brevity penalty * geometric mean of the n-gram precisions, over all pairs: [U, U]."""
    log_precisions = smoothed_log_precisions(statistics.matches, statistics.totals)
    orders = (
        np.minimum(statistics.lengths, MAX_ORDER) if effective_order else np.full_like(statistics.lengths, MAX_ORDER)
    )
    bleu = np.exp(log_precisions.sum(axis=0) / np.maximum(orders, 1)[:, None]) * brevity_penalty(statistics.lengths)
    defined = statistics.matches.any(axis=0) & (statistics.lengths >= orders)[:, None]
    return np.where(defined, bleu, 0.0)


def smoothed_log_precisions(matches: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Log of n-gram precisions in percent, [4, U, U]; the k-th order without a match counts 2^-k matches (NIST).

    Orders the hypothesis is too short for contribute 0. `matches` is [4, U, U], `totals` [4, U].
    """
    possible = totals[:, :, None] > 0
    missed = (matches == 0) & possible
    counted = np.where(missed, 0.5 ** np.cumsum(missed, axis=0), matches)
    precisions = 100.0 * counted / np.maximum(totals, 1)[:, :, None]
    return np.log(np.where(possible, precisions, 1.0))


def brevity_penalty(lengths: np.ndarray) -> np.ndarray:
    """min(1, exp(1 - |reference| / |hypothesis|)) for all pairs of lengths [U]: [U, U]."""
    return np.exp(np.minimum(1.0 - lengths[None, :] / np.maximum(lengths, 1)[:, None], 0.0))


def mbr_scores(candidates: Sequence[Candidate], effective_order: bool = True) -> np.ndarray:
    """Mean BLEU of each of K candidates against the K-1 others, copies of it included: [K]; a lone candidate has 0."""
    return mean_against_others(bleu_matrix(candidates, effective_order))


def mean_against_others(bleu: np.ndarray) -> np.ndarray:
    """Mean of each row of bleu [K, K] without its diagonal entry: [K]."""
    others = np.where(np.eye(len(bleu), dtype=bool), 0.0, bleu)
    return others.sum(axis=1) / max(len(bleu) - 1, 1)


def ranking(candidates: Sequence[Candidate], effective_order: bool = True) -> list[int]:
    """Indices of the candidates from the best MBR score to the worst; ties keep the order of the list."""
    return best_first(mbr_scores(candidates, effective_order))


def best_first(scores: np.ndarray) -> list[int]:
    """Indices of scores [K] in descending order, equal scores by index."""
    if not len(scores):
        raise ValueError("no candidates to choose from: every sentence, and every length group, needs at least one")
    return np.argsort(-np.round(scores, TIE_DECIMALS), kind="stable").tolist()


def ranking_two_level(groups: Sequence[Sequence[Candidate]], effective_order: bool = True) -> list[tuple[int, int]]:
    """All candidates as (group, index within it), best first: DINOISER's selection, continued to the last candidate.

    Each length group is ranked by mean BLEU against the group's other samples, then the groups by mean BLEU of their
    winners against the other winners. First come the winners, then the runners-up, and so on, by order of their groups.
    """
    bleu = bleu_matrix(list(chain.from_iterable(groups)), effective_order)
    ends = np.cumsum([len(group) for group in groups])
    places = [np.arange(end - len(group), end) for group, end in zip(groups, ends)]
    within = [best_first(mean_against_others(bleu[np.ix_(place, place)])) for place in places]
    winners = [place[order[0]] for place, order in zip(places, within)]
    among = best_first(mean_against_others(bleu[np.ix_(winners, winners)]))
    rounds = range(max(map(len, within)))
    return [(group, within[group][rank]) for rank in rounds for group in among if rank < len(within[group])]
