"""Room for a target whose length is not predicted exactly: the rest is filled with </s>, which is predicted too."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.kernels import noise

FILLED = ("half", "canvas")  # of --length-target


class FilledCanvas(NamedTuple):
    """As many positions as `positions` and `scale` times the source's, or as the target has; a multiple of `unit`.

    In training a word has the symbol `blank` before it with probability `blanks`, as long as there is room.
    """

    eos: int
    pad: int
    longest: int
    positions: int = 0
    scale: float = 0.0
    unit: int = 1
    blank: int = -1
    blanks: float = 0.0

    def room(self, source_length: Tensor, length: Tensor) -> Tensor:
        """The size [B] for targets of `length` [B] with both ends."""
        size = torch.maximum(self.positions + (self.scale * source_length).ceil().long(), length)
        return (-(-size // self.unit) * self.unit).clamp(max=self.longest)

    def filled(
        self, source_length: Tensor, widest: int, target: Tensor, mask: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Targets [B, L], mask true at real tokens, with </s> behind; and which positions are real, [B, L'].

        `widest` is the most tokens a source may have: a size that the host knows.  With random keys [B] there are
        blanks between the words.
        """
        length = mask.sum(-1)
        longest = torch.tensor([[widest], [target.shape[1]]])
        width = max(target.shape[1], int(self.room(*longest)))
        order = (~mask).long().argsort(dim=-1, stable=True)
        words = F.pad(target.gather(1, order), (0, width - target.shape[1]))
        place = torch.arange(width, device=target.device)
        room = self.room(source_length, length)[:, None]
        real = place < room
        words = torch.where(place < length[:, None], words, self.eos)
        if self.blanks and keys is not None:
            before = (noise.uniform(keys, width) < self.blanks) & (place > 0) & (place < length[:, None])
            before &= before.long().cumsum(-1) <= room - length[:, None]
            words = self._spaced(words, before)
        return words.where(real, self.pad), real

    def _spaced(self, words: Tensor, before: Tensor) -> Tensor:
        """Words [B, L] with a blank before each that `before` [B, L] is true at; what has no place is cut off."""
        place = torch.arange(words.shape[1], device=words.device) + before.long().cumsum(-1)
        kept = place < words.shape[1]
        spaced = torch.full_like(words, self.blank)
        last = words.shape[1]  # one place more, for what is cut off
        spaced = F.pad(spaced, (0, 1)).scatter_(1, place.where(kept, last), words)
        return spaced[:, :last]

    def used(self, tokens: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """Where tokens [..., L], of which mask is real, are up to the end, which is the first </s>, but not before a
        word that is `known` [..., L] (-1 for others) to be in the translation."""
        ends = tokens == self.eos
        if known is not None:
            words = (known >= 0) & (known != self.eos)
            ends = ends & (words.flip(-1).cumsum(-1).flip(-1) == 0)
        return mask & (ends.long().cumsum(-1) - ends.long() == 0)
