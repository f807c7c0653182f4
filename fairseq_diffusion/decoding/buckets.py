"""A batch in buckets of sentences whose candidates have similar lengths, as many at once as suit the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.translators.batch import Candidates, HistoryStep, Lengths, Source

# Positions of candidates decoded at once on a GPU, padding included, unless the user sets another number: launches
# should be few, and above 20,000 positions or so they are hidden behind arithmetic.  On a CPU, numbers should stay in
# the cache, with little padding: see Decoder.positions_on_a_cpu.
ON_A_GPU = 2**15
GRAIN = 8  # of fixed shapes: lengths are rounded up to multiples of it


class Bucket(NamedTuple):
    """Successive sentences in an order by length, and the shape that they are padded to."""

    first: int
    sentences: int
    rows: int  # sentences computed: copies of the last fill a fixed shape
    width: int  # positions of a candidate
    source_width: int


def plan(lengths: Sequence[int], sources: Sequence[int], candidates: int, limit: int, fixed: bool) -> list[Bucket]:
    """Buckets of sentences whose longest candidates have falling `lengths`, each within `limit` positions of all its
    `candidates`; a sentence that is larger has a bucket of its own.

    With `fixed`, shapes are rounded up to a few: lengths to multiples of GRAIN, sentences to powers of two.
    """
    found, first = [], 0
    while first < len(lengths):
        width = up_to_grain(lengths[first]) if fixed else lengths[first]
        room = max(1, limit // (candidates * width))
        if fixed:
            room = 1 << (room.bit_length() - 1)  # the largest power of two that is not above it
        count = min(room, len(lengths) - first)
        longest = max(sources[first : first + count])
        # mostly translations are about as long as sources: one shape for both
        source_width = max(width, up_to_grain(longest)) if fixed else longest
        rows = 1 << (count - 1).bit_length() if fixed else count
        found.append(Bucket(first, count, rows, width, source_width))
        first += count
    return found


def up_to_grain(length: int) -> int:
    return -(-length // GRAIN) * GRAIN


class Buckets:
    """Splits a batch into buckets, and joins what was decoded of them."""

    def __init__(self, source: Source, lengths: Lengths, keys: Tensor, limit: int, fixed: bool):
        """Of S sentences with `lengths` and random keys [S, l, n]; the host waits for the device once, for the plan."""
        longest, order = lengths.positions.amax(-1).sort(descending=True, stable=True)
        widths, sources = torch.stack([longest, source.length[order]]).tolist()
        self.source, self.lengths, self.keys, self.order = source, lengths, keys, order
        self.plan = plan(widths, sources, keys[0].numel(), limit, fixed)

    def __iter__(self) -> Iterator[tuple[Source, Lengths, Tensor]]:
        """Source, lengths and keys of each bucket's sentences, with less padding."""
        for first, count, rows, width, source_width in self.plan:
            here = self.order[first : first + count]
            here = torch.cat([here, here[-1:].expand(rows - count)])
            yield self.source.select(here, source_width), self.lengths.select(here, width), self.keys[here]

    def together(self, decoded: Sequence[tuple[Candidates, list[HistoryStep]]]) -> tuple[Candidates, list[HistoryStep]]:
        """The candidates of all buckets, and the steps of their histories, in the order of the batch."""
        parts, histories = zip(*decoded)
        candidates = Candidates(
            *(self._joined(column, fill=0 if number else -1) for number, column in enumerate(zip(*map(tuple, parts))))
        )
        # a bucket that ended sooner keeps its last step
        steps = ([each[min(i, len(each) - 1)] for each in histories] for i in range(max(map(len, histories))))
        return candidates, [HistoryStep(*map(self._joined, zip(*step))) for step in steps]

    def _joined(self, parts: Sequence[Tensor], fill: int = 0) -> Tensor:
        """[S_i, K, L_i] of each bucket -> [S, K, L]; [S_i, K] needs no padding."""
        width = max(part.shape[-1] for part in parts)
        own = (part[: bucket.sentences] for part, bucket in zip(parts, self.plan))
        rows = [F.pad(part, (0, width - part.shape[-1]), value=fill) for part in own]
        return torch.cat(rows)[self.order.argsort()]
