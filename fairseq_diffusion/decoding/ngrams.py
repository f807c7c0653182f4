"""N-gram statistics of every pair in a list of token sequences, as matrices instead of a loop over pairs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

MAX_ORDER = 4


class PairStatistics(NamedTuple):
    """What BLEU is a function of, for U sequences and orders n = 1..4."""

    lengths: np.ndarray  # [U]        tokens in sequence i
    totals: np.ndarray  # [4, U]     n-grams in sequence i
    matches: np.ndarray  # [4, U, U]  n-grams of i also found in j, clipped: sum over n-grams of min(c_i, c_j)


def pair_statistics(sequences: Sequence[Sequence[Hashable]]) -> PairStatistics:
    """Lengths, n-gram totals and clipped n-gram matches of all pairs of U sequences (Papineni et al. 2002)."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    totals = np.stack([np.maximum(lengths - order, 0) for order in range(MAX_ORDER)])
    matches = np.zeros((MAX_ORDER, len(sequences), len(sequences)))
    for order, (owners, ngrams) in enumerate(ngram_ids(sequences, lengths)):
        matches[order] = clipped_matches(occurrence_counts(owners, ngrams, len(sequences)))
    return PairStatistics(lengths, totals, matches)


def ngram_ids(sequences: Sequence[Sequence[Hashable]], lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For n = 1, 2, .. while any sequence is that long: who owns each n-gram [N], and its number 0..distinct-1 [N]."""
    vocabulary: dict[Hashable, int] = {}
    tokens = np.array([vocabulary.setdefault(t, len(vocabulary)) for s in sequences for t in s], dtype=np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # tokens from here to the sequence's end
    starts, ngrams = np.arange(len(tokens)), tokens
    for order in range(1, MAX_ORDER + 1):
        if order > 1:  # an n-gram is the (n-1)-gram that starts in the same place and one more token
            long_enough = left[starts] >= order
            starts = starts[long_enough]
            pairs = ngrams[long_enough] * len(vocabulary) + tokens[starts + order - 1]
            ngrams = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        if not len(starts):
            return
        yield owners[starts], ngrams


def occurrence_counts(owners: np.ndarray, ngrams: np.ndarray, owner_count: int) -> np.ndarray:
    """How often each owner [N] has each n-gram [N]: counts [owners, distinct n-grams]."""
    distinct = int(ngrams.max()) + 1
    return np.bincount(owners * distinct + ngrams, minlength=owner_count * distinct).reshape(owner_count, distinct)


def clipped_matches(counts: np.ndarray) -> np.ndarray:
    """Sum over n-grams of min(c_i, c_j) for all pairs of rows of counts [U, N] -> [U, U].

    min(a, b) = sum over k >= 1 of [a >= k][b >= k], and each summand is a matrix product of zeros and ones.
    """
    matches = np.zeros((len(counts), len(counts)))
    threshold = 1
    while counts.shape[1]:
        reached = (counts >= threshold).astype(np.float32)  # exact: sums stay far below 2^24
        matches += reached @ reached.T
        threshold += 1
        counts = counts[:, (counts >= threshold).any(axis=0)]
    return matches
