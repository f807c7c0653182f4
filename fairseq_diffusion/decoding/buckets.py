"""A batch in buckets: sentences whose candidates are about as long, as many at once as the device likes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.decoding.hypotheses import Spoken, Step, parts_of

# Positions of candidates decoded at once, padding included, unless the user says otherwise.  A CPU wants its numbers in
# a cache, and no padding; a GPU few launches, and above 20,000 positions or so these are hidden behind its arithmetic.
ON_A_CPU = 1024
ON_A_GPU = 2**15
GRAIN = 8  # of fixed shapes: lengths are rounded up to multiples of it


class Drafts(NamedTuple):
    """S sentences to be translated, and the lengths to try."""

    source: Any  # of the model's own kind
    keys: Tensor  # [S], for noise
    lengths: Tensor  # [S, l]
    length_log_p: Tensor  # [S, l]
    width: int = 0  # positions of a canvas; a bucket's

    def select(self, sentences: Tensor, width: int, source_width: int) -> Drafts:
        """The sentences numbered [N] alone, with less padding."""
        source = self.source.select(sentences, source_width)
        return Drafts(source, self.keys[sentences], self.lengths[sentences], self.length_log_p[sentences], width)


class Bucket(NamedTuple):
    """Some neighbours among sentences that are sorted by length, and the room they get."""

    first: int
    count: int
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
        found.append(Bucket(first, count, power_of_two(count) if fixed else count, width, source_width))
        first += count
    return found


def up_to_grain(length: int) -> int:
    return -(-length // GRAIN) * GRAIN


def power_of_two(count: int) -> int:
    """The smallest that is not below `count`; 0 for nothing."""
    return 1 << (count - 1).bit_length() if count else 0


class Buckets:
    """A batch cut up, and put together again."""

    def __init__(self, drafts: Drafts, candidates: int, limit: int, fixed: bool):
        """The host waits for the device once, for all that a plan needs."""
        longest, order = drafts.lengths.amax(-1).sort(descending=True, stable=True)
        lengths, sources = torch.stack([longest, drafts.source.length[order]]).tolist()
        self.drafts, self.order = drafts, order
        self.plan = plan(lengths, sources, candidates, limit, fixed)

    def __iter__(self) -> Iterator[Drafts]:
        """What is to be written in each."""
        for first, count, rows, width, source_width in self.plan:
            here = self.order[first : first + count]
            filling = here[-1:].expand(rows - count)
            yield self.drafts.select(torch.cat([here, filling]), width, source_width)

    def together(self, written: Sequence[tuple[Spoken, list[Step]]]) -> tuple[Spoken, list[Step]]:
        """What was written in all of them, and the steps on the way, in the order of the batch."""
        columns = zip(*(parts_of(spoken) for spoken, _ in written))
        spoken = Spoken(*(self._joined(column, fill=0 if number else -1) for number, column in enumerate(columns)))
        trails = [trail for _, trail in written]
        # in a bucket that ended sooner, everybody goes on saying what they said last
        steps = ([trail[min(i, len(trail) - 1)] for trail in trails] for i in range(max(map(len, trails))))
        return spoken, [Step(*map(self._joined, zip(*step))) for step in steps]

    def _joined(self, parts: Sequence[Tensor], fill: int = 0) -> Tensor:
        """[S_i, K, L_i] of each bucket -> [S, K, L]; in [S_i, K] there is nothing to fill up."""
        width = max(part.shape[-1] for part in parts)
        own = (part[: bucket.count] for part, bucket in zip(parts, self.plan))
        rows = [F.pad(part, (0, width - part.shape[-1]), value=fill) for part in own]
        return torch.cat(rows)[self.order.argsort()]
