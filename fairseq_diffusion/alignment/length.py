"""The canvas has the translation's length, which is predicted: each position predicts one word."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import (
    ALIGNMENTS,
    Alignment,
    Canvas,
    Reading,
    Revealed,
    Scored,
    Symbols,
    Words,
    by_sentence,
    word_scores,
)
from fairseq_diffusion.alignment.template import known_words


@ALIGNMENTS.register("length")
class LengthAlignment(Alignment):
    """Cross-entropy position by position, with label smoothing by fairseq's rule (1 - e) NLL + e mean NLL."""

    name = "length"
    predicts_length = True
    aligned = True

    def __init__(self, symbols: Symbols, upsample: float, longest: int = 256, label_smoothing: float = 0.0):
        super().__init__(symbols, upsample, longest)
        self.label_smoothing = label_smoothing

    def known_index(self, mask: Tensor) -> Tensor:
        return torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1)

    def score(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, index: Tensor) -> Scored:
        scores, e = word_scores(h, words, target[..., None]), self.label_smoothing
        nll = -(1 - e) * scores.log_p[..., 0] - (e * scores.mean if e else 0.0)
        counted = mask & (index < 0)
        return Scored(
            scores.best,
            nll.masked_fill(~counted, 0).sum(-1),
            counted.sum(-1).clamp(min=1),
            torch.zeros_like(mask[:, 0]),
            lambda: scores.log_p[..., 0].double().masked_fill(~counted, 0).sum(-1),
            lambda: self.known_index(mask),
        )

    def placed(self, h: Tensor, words: Tensor, canvas: Canvas, empty: Revealed) -> Revealed:
        assert canvas.template is not None
        log_p = word_scores(h, words, canvas.template.at(h.shape[1])).log_p
        known = known_words(log_p, canvas.template, canvas.mask.sum(-1))
        shown = canvas.hidden & (known.tokens >= 0)
        return Revealed(torch.where(shown, known.tokens, empty.tokens), canvas.hidden & ~shown, known.log_p)

    def words(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed, how: Reading) -> Words:
        tokens, log_p, mask, _ = self.guess(h, words, canvas, revealed)
        return by_sentence(tokens, log_p, mask, log_p.new_zeros(log_p.shape[0]), how.candidates)
