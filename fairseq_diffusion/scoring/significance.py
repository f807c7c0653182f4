"""Paired bootstrap between all pairs of systems, with the results of ``sacrebleu --paired-bs`` but for ties.

sacreBLEU compares each system with one baseline, and draws the same resamples for every pair; here each system's
resampled scores are computed once, so that n systems take n times one and not n (n - 1) / 2 times two. The two methods
of its metrics that are used here are private to sacreBLEU; tests compare with its own p-values.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

SEED = 12345  # sacreBLEU's

Matrix = dict[str, dict[str, float | None]]


def p_values(metric: Any, systems: dict[str, list[str]], samples: int) -> Matrix:
    """p of the two-sided test for each pair, both ways; None for a pair of the same text."""
    scores = {name: resampled(metric, texts, samples) for name, texts in systems.items()}
    found: Matrix = {name: {} for name in systems}
    for one, other in combinations(systems, 2):
        same = systems[one] == systems[other]
        found[one][other] = found[other][one] = None if same else p_value(*scores[one], *scores[other])
    return found


def resampled(metric: Any, texts: list[str], samples: int) -> tuple[float, np.ndarray]:
    """The score of the text (N sentences), and those of `samples` draws of N of its sentences."""
    statistics = np.array(metric._extract_corpus_statistics(texts, None), dtype=np.float64)
    drawn = np.random.default_rng(SEED).choice(len(texts), size=(samples, len(texts)), replace=True)
    times = np.stack([np.bincount(row, minlength=len(texts)) for row in drawn])
    scores = [metric._compute_score_from_stats(total).score for total in times @ statistics]
    return metric._compute_score_from_stats(statistics.sum(0)).score, np.array(scores)


def p_value(score: float, resamples: np.ndarray, other_score: float, other_resamples: np.ndarray) -> float:
    """Share of resamples whose difference, less the mean one, is at least that of the whole, as in Moses' script.

    sacreBLEU leaves out those that are equal to it, which calls a difference of 0 in every resample significant.
    """
    differences = np.abs(resamples - other_resamples)
    at_least = np.sum(differences - differences.mean() >= abs(score - other_score))
    return float((at_least + 1) / (len(differences) + 1))
