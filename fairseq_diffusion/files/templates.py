"""Templates of translations as text: "___ dog ___ snow ___" is two segments, with gaps for any number of words."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Callable

import torch
from torch import Tensor

from fairseq_diffusion.alignment.template import GAP
from fairseq_diffusion.errors import UserError

GAP_WORD = "___"


def template_row(text: str, encode: Callable[[str], str], dictionary: Any) -> Tensor:
    """The word pieces of a template and its gaps, and </s> behind them, [R].

    Args:
        text: words, and ``___`` by itself for a gap; several gaps side by side are one.
        encode: prepares text as targets are prepared; each segment by itself.
        dictionary: fairseq's, of the target.
    """
    if not text.split():
        raise UserError(f"a template is empty; write {GAP_WORD} where any words may stand")
    found: list[int] = []
    for is_gap, words in groupby(text.split(), GAP_WORD.__eq__):
        found += [GAP] if is_gap else segment(" ".join(words), encode, dictionary)
    return torch.tensor([*found, dictionary.eos()])


def segment(text: str, encode: Callable[[str], str], dictionary: Any) -> list[int]:
    """Numbers of the word pieces of a segment; special symbols, and words that are not in the dictionary, are
    refused."""
    pieces = encode(text).split()
    numbers = [dictionary.index(piece) for piece in pieces]
    special = {
        dictionary.bos(),
        dictionary.pad(),
        dictionary.eos(),
        dictionary.unk(),
        getattr(dictionary, "mask_index", None),
    }
    for piece, number in zip(pieces, numbers):
        if number in special:
            what = "is not in the target dictionary" if number == dictionary.unk() else "is a special symbol"
            raise UserError(
                f"a template has {text!r}, but its piece {piece!r} {what}; write it as the training data have it, or "
                f"put {GAP_WORD} in its place"
            )
    if not numbers:
        raise UserError(f"nothing is left of the template's {text!r} when it is prepared; drop it, or write {GAP_WORD}")
    return numbers
