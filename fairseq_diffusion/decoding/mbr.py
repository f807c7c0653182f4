"""Choosing among candidates by minimum Bayes risk (Kumar and Byrne 2004), with sentence BLEU or chrF as the utility.

The best candidate is the one most like the others: argmax_i 1/(K-1) sum_{j != i} utility(hypothesis i, reference j).
Copies are one translation with several votes, and utilities are computed between different translations only.
chrF is of character n-grams, so that a near miss is not a miss.
"""

from __future__ import annotations

import numpy as np

from fairseq_diffusion.decoding.ngrams import PairStatistics, Sequences, pair_statistics

BLEU_ORDERS, CHRF_ORDERS = 4, 6
BETA = 2  # chrF counts recall as much as BETA^2 times the precision
TIE_DECIMALS = 9  # merits that agree to here are equal: the rest is the order in which floats were added


def bleu(sequences: Sequences) -> np.ndarray:
    """Sentence BLEU (0..100) of each of U sequences as hypothesis (row) against each as reference: [S, U, U].

    Equals sacreBLEU with ``smooth_method="exp"``, ``effective_order=True`` and ``tokenize="none"``.
    """
    statistics = pair_statistics(sequences, BLEU_ORDERS)
    orders = np.clip(sequences.sizes, 1, BLEU_ORDERS)  # those longer than the hypothesis are left out
    mean = smoothed_log_precisions(statistics).sum(axis=0) / orders[..., None]
    scores = 100.0 * np.exp(mean + log_brevity_penalty(sequences.sizes))
    return np.where(statistics.matches.any(axis=0), scores, 0.0)


def smoothed_log_precisions(statistics: PairStatistics) -> np.ndarray:
    """Log of n-gram precisions, [4, S, U, U]; the k-th order without a match counts 2^-k matches (NIST).

    Orders the hypothesis is too short for contribute 0.
    """
    totals = statistics.totals[..., None]
    missed = (statistics.matches == 0) & (totals > 0)
    log_matches = np.log(np.maximum(statistics.matches, 1.0))
    counted = np.where(missed, np.log(0.5) * np.cumsum(missed, axis=0), log_matches)
    return counted - np.log(np.maximum(totals, 1))


def log_brevity_penalty(sizes: np.ndarray) -> np.ndarray:
    """min(0, 1 - |reference| / |hypothesis|) for all pairs of sizes [S, U]: [S, U, U]."""
    return np.minimum(1.0 - sizes[:, None, :] / np.maximum(sizes, 1)[:, :, None], 0.0)


def chrf(sequences: Sequences) -> np.ndarray:
    """chrF2 (0..100; Popović 2015) of each of U sequences of characters as hypothesis (row) against each: [S, U, U].

    F = (1 + beta^2) P R / (beta^2 P + R), P and R the mean n-gram precision and recall over the orders that both sides
    are long enough for. Equals sacreBLEU's chrF with its usual settings, of characters without spaces.
    """
    totals, matches = pair_statistics(sequences, CHRF_ORDERS)
    hypothesis, reference = totals[:, :, :, None], totals[:, :, None, :]
    orders = np.maximum(((hypothesis > 0) & (reference > 0)).sum(axis=0), 1)
    precision = (matches / np.maximum(hypothesis, 1)).sum(axis=0) / orders
    recall = (matches / np.maximum(reference, 1)).sum(axis=0) / orders
    weighed = BETA**2 * precision + recall
    return 100.0 * (1 + BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1.0)


def expected_utility(utility: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Mean utility of one copy of each translation against all other candidates, further copies of it included.

    From utility [S, U, U] and how many copies there are, votes [S, U]: [S, U]; a lone candidate has 0.
    """
    others = votes[:, None, :] - np.eye(votes.shape[1])
    mean = (utility * others).sum(axis=2) / np.maximum(votes.sum(axis=1, keepdims=True) - 1, 1)
    return np.round(mean, TIE_DECIMALS)


def two_level_merit(utility: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """DINOISER's selection (Ye et al. 2023), continued to the last translation: [S, U], higher is better.

    Each length ranks its own translations by their utility against the length's other candidates; then the lengths are
    ranked by the utility of their winners against the other winners. First come the winners, then the runners-up, and
    so on, in the order of their lengths; a translation found at several lengths stands where it comes first.
    From utility [S, U, U] and the copies at each of R lengths, votes [S, U, R].
    """
    within = np.stack([expected_utility(utility, votes[..., r]) for r in range(votes.shape[2])], axis=1)
    member = votes.swapaxes(1, 2) > 0
    rank = ranks(np.where(member, within, -np.inf))
    winner, present = rank.argmin(axis=2), member.any(axis=2)
    sentence = np.arange(len(votes))[:, None, None]
    among = expected_utility(utility[sentence, winner[:, :, None], winner[:, None, :]], present.astype(int))
    place = ranks(np.where(present, among, -np.inf))[..., None]
    return -np.where(member, rank * votes.shape[2] + place, np.inf).min(axis=1)


def ranks(merit: np.ndarray) -> np.ndarray:
    """How many stand before each entry of `merit` [..., U] when the last axis is sorted best first, ties in order."""
    return np.argsort(np.argsort(-merit, axis=-1, kind="stable"), axis=-1)
