"""The canvas has the translation's length, which is predicted: each position says one word."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import (
    BACK_ENDS,
    BackEnd,
    Canvas,
    Finish,
    Reading,
    Shown,
    Symbols,
    Written,
    by_sentence,
    said_of,
    without_repeats,
)


@BACK_ENDS.register("length")
class LengthBackEnd(BackEnd):
    """Cross-entropy position by position, with label smoothing by fairseq's rule (1 - e) NLL + e mean NLL."""

    predicts_length = True
    aligned = True

    def __init__(self, symbols: Symbols, upsample: float, label_smoothing: float = 0.0):
        super().__init__(symbols, upsample)
        self.label_smoothing = label_smoothing

    def alignment(self, mask: Tensor) -> Tensor:
        return torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1)

    def read(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, place: Tensor) -> Reading:
        said, e = said_of(h, words, target[..., None]), self.label_smoothing
        nll = -(1 - e) * said.log_p[..., 0] - (e * said.mean if e else 0.0)
        due = mask & (place < 0)
        return Reading(
            said.best,
            nll.masked_fill(~due, 0).sum(-1),
            due.sum(-1).clamp(min=1),
            torch.zeros_like(mask[:, 0]),
            lambda: self.alignment(mask),
        )

    def write(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown, finish: Finish, candidates: int) -> Written:
        tokens, log_p, said, _ = self.guess(h, words, canvas, shown)
        written = by_sentence(tokens, log_p, said, log_p.new_zeros(len(log_p)), candidates)
        return without_repeats(written) if finish.drop_repeats else written
