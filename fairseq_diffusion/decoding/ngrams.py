"""N-gram statistics of every pair of a sentence's sequences, for many sentences at once, as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

WIDEST_KEY = 2**62  # what a sort key must stay below, in 64 bits


class Sequences(NamedTuple):
    """U sequences of integers (tokens, words, characters) for each of S sentences; some may be empty."""

    items: np.ndarray  # [N] those of all sequences, one sequence after the other; small and not negative
    sizes: np.ndarray  # [S, U] items in each sequence

    @property
    def rows(self) -> np.ndarray:
        """[N] which of the S U sequences each item belongs to."""
        return np.repeat(np.arange(self.sizes.size), self.sizes.ravel())


def unpadded(tokens: np.ndarray, sizes: np.ndarray) -> Sequences:
    """The first `sizes` [S, U] entries of each row of `tokens` [S, U, L]."""
    return Sequences(tokens[np.arange(tokens.shape[-1]) < sizes[..., None]], sizes)


class PairStatistics(NamedTuple):
    """What BLEU and chrF are functions of, for orders n = 1..O."""

    totals: np.ndarray  # [O, S, U]     n-grams in sequence i
    matches: np.ndarray  # [O, S, U, U]  n-grams of i also found in j, clipped: sum over n-grams of min(c_i, c_j)


def pair_statistics(sequences: Sequences, orders: int) -> PairStatistics:
    """N-gram totals and clipped n-gram matches of all pairs within each sentence (Papineni et al. 2002)."""
    sizes = sequences.sizes
    totals = np.stack([np.maximum(sizes - order, 0) for order in range(orders)])
    matches = np.zeros((orders, *sizes.shape, sizes.shape[1]))
    for order, (rows, ngrams) in enumerate(numbered_ngrams(sequences, orders)):
        matches[order] = clipped_matches(occurrence_counts(rows, ngrams, sizes.shape))
    return PairStatistics(totals, matches)


def numbered_ngrams(sequences: Sequences, orders: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For n = 1..O while there are any: each n-gram's sequence [M], and its number among its sentence's own [M].

    One sort serves all orders: where the windows of O items that start at each place are in lexicographic order, equal
    n-grams stand together for every n <= O. Windows may reach into the next sequence: such n-grams are not yielded.
    """
    rows, sentences = sequences.rows, sequences.rows // max(sequences.sizes.shape[1], 1)
    left = np.repeat(np.cumsum(sequences.sizes), sequences.sizes.ravel()) - np.arange(len(rows))
    windows = windows_of(sequences.items, orders)
    order = np.argsort(lexicographic_key(sentences, windows))  # keeps sentences in their places
    windows, rows, left = windows[:, order], rows[order], left[order]
    other_ngram = np.logical_or.accumulate(windows[:, 1:] != windows[:, :-1])
    first = np.searchsorted(sentences, sentences)
    for n, other in enumerate(other_ngram, start=1):
        numbers = np.concatenate([[0], np.cumsum(other)])[: len(rows)]
        whole = left >= n
        if not whole.any():
            return
        yield rows[whole], (numbers - numbers[first])[whole]


def windows_of(items: np.ndarray, width: int) -> np.ndarray:
    """[O, N] the items [N] from each place on, by their rank among the different items; 0 behind the last one."""
    numbers = np.cumsum(np.bincount(items) > 0)[items] - 1
    windows = np.zeros((width, len(items)), dtype=np.int64)
    for ahead in range(min(width, len(items))):
        windows[ahead, : len(items) - ahead] = numbers[ahead:]
    return windows


def lexicographic_key(first: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N] integers in the order of the tuples (first [N], *others [O, N]), none of them negative."""
    key, base = first, int(others.max(initial=0)) + 1
    for column in others:
        if int(key.max(initial=0)) >= WIDEST_KEY // base:
            key = np.unique(key, return_inverse=True)[1].reshape(-1)
        key = key * base + column
    return key


def occurrence_counts(rows: np.ndarray, ngrams: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How often each of `shape` = (S, U) sequences has each n-gram, from (row, n-gram) pairs [M]: [S, U, distinct]."""
    distinct = int(ngrams.max()) + 1
    return np.bincount(rows * distinct + ngrams, minlength=shape[0] * shape[1] * distinct).reshape(*shape, distinct)


def clipped_matches(counts: np.ndarray) -> np.ndarray:
    """Sum over n-grams of min(c_i, c_j) for all pairs of rows of counts [S, U, N] -> [S, U, U].

    min(a, b) = sum over k >= 1 of [a >= k][b >= k], and each summand is a matrix product of zeros and ones.
    """
    matches = np.zeros((*counts.shape[:2], counts.shape[1]))
    threshold = 1
    while counts.size:
        reached = (counts >= threshold).astype(np.float32)  # exact: sums stay far below 2^24
        matches += reached @ reached.swapaxes(1, 2)
        threshold += 1
        counts = counts[..., (counts >= threshold).any(axis=(0, 1))]
    return matches
