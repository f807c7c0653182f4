"""Connectionist temporal classification: a canvas longer than the translation, whose neighbouring repeats and then
blanks are dropped (Graves et al. 2006; Libovicky and Helcl 2018).

<s>, which no translation says, is the blank; so a target's first column is the blank's.
"""

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
    Written,
    by_sentence,
    said_of,
)
from fairseq_diffusion.kernels.ctc import collapse, ctc_best_path, ctc_log_likelihood


@BACK_ENDS.register("ctc")
class CTCBackEnd(BackEnd):
    """All alignments summed up; a revealed word forces them to say it there."""

    has_ends = False
    unsaid = ("pad", "eos")

    def given(self, canvas: Canvas, mask: Tensor) -> Tensor:
        return torch.full_like(canvas.tokens, -1)

    def read(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, place: Tensor) -> Reading:
        said = said_of(h, words, target[:, None].expand(-1, h.shape[1], -1))
        shown = target.gather(1, place.clamp(min=0))
        forced = torch.where(target[:, None] == shown[..., None], 0.0, -torch.inf)
        emission = torch.where((place >= 0)[..., None], forced, said.log_p)[..., :-1]
        length = (mask.sum(-1) - 2).clamp(min=0)
        graph = target[:, 1:-1], length, canvas.mask.sum(-1)
        log_p, impossible = ctc_log_likelihood(emission, *graph)
        return Reading(
            said.best, -log_p, length.clamp(min=1), impossible, lambda: ctc_best_path(emission.detach(), *graph)
        )

    def write(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown, finish: Finish, candidates: int) -> Written:
        """The likeliest symbol at each position, collapsed; a word answers for what follows it too, up to the next."""
        tokens, log_p, *_ = self.guess(h, words, canvas, shown)
        said = collapse(tokens, canvas.mask, self.symbols.bos)
        word = said.long().cumsum(-1)
        sums = log_p.new_zeros(len(log_p), log_p.shape[1] + 1)
        sums = sums.scatter_add(1, word, log_p.masked_fill(~canvas.mask, 0))
        return by_sentence(tokens, sums.gather(1, word), said, sums[:, 0], candidates)
