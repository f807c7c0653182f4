"""Text of one language as pairs to pretrain on: a span of a paragraph, and the paragraph without it (GENIE's continuous
paragraph denoise, Lin et al. 2023)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

SPAN = "<span>"  # stands for the span in the source
Paragraph = list[str]


def paragraphs(lines: Iterable[str], longest: int) -> Iterator[Paragraph]:
    """Lines one behind the other, as many as have together no more than `longest` tokens; an empty line ends a
    paragraph, and a line that is longer is cut."""
    held: Paragraph = []
    for line in lines:
        tokens = line.split()
        if held and (not tokens or len(held) + len(tokens) > longest):
            yield held
            held = []
        while len(tokens) > longest:
            yield tokens[:longest]
            tokens = tokens[longest:]
        held += tokens
    if held:
        yield held


def without_span(paragraph: Paragraph, share: float, draw: random.Random) -> tuple[Paragraph, Paragraph] | None:
    """The paragraph with SPAN in place of `share` of its tokens side by side, and these; None if one of the two has
    none."""
    size = int(share * len(paragraph))
    if not 0 < size < len(paragraph):
        return None
    first = draw.randrange(len(paragraph) - size + 1)
    last = first + size
    return [*paragraph[:first], SPAN, *paragraph[last:]], paragraph[first:last]
