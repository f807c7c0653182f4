"""chrF as a utility for minimum Bayes risk: character n-grams, so that a near miss is not a miss."""

from __future__ import annotations

import numpy as np

from fairseq_diffusion.decoding.ngrams import Sequences, pair_statistics

ORDERS = 6
BETA = 2  # recall counts as much as BETA^2 times the precision


def chrf(sequences: Sequences) -> np.ndarray:
    """chrF2 (0..100; Popović 2015) of each of U sequences of characters as hypothesis (row) against each: [S, U, U].

    F = (1 + beta^2) P R / (beta^2 P + R), P and R the mean n-gram precision and recall over the orders that both sides
    are long enough for. Equals sacreBLEU's chrF with its usual settings, of characters without spaces.
    """
    totals, matches = pair_statistics(sequences, ORDERS)
    hypothesis, reference = totals[:, :, :, None], totals[:, :, None, :]
    orders = np.maximum(((hypothesis > 0) & (reference > 0)).sum(axis=0), 1)
    precision = (matches / np.maximum(hypothesis, 1)).sum(axis=0) / orders
    recall = (matches / np.maximum(reference, 1)).sum(axis=0) / orders
    weighed = BETA**2 * precision + recall
    return 100.0 * (1 + BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1.0)
