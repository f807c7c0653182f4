"""A batch of candidates as the sampling loop wants it: S sentences, K candidates each, L positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fairseq_diffusion.process import noise
from fairseq_diffusion.translator import Source, Translator


@dataclass(frozen=True)
class Rows:
    """Candidates that share their sentence's encoded source.

    The network sees S K rows.  A candidate's noise is a function of its key alone, whoever stands beside it.
    """

    translator: Translator
    source: Source
    keys: Tensor  # [S, K]
    mask: Tensor  # [S, K, L], true at real positions

    @classmethod
    def of(cls, translator: Translator, source: Source, keys: Tensor, lengths: Tensor, noises: int) -> Rows:
        """`noises` candidates for each of the lengths [S, l] to try; keys [S] are the sentences'."""
        numbers = torch.arange(noises, device=lengths.device)
        keys = noise.fold(keys[:, None, None], lengths[:, :, None], numbers).flatten(1)
        lengths = lengths.repeat_interleave(noises, 1)
        mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[..., None]
        return cls(translator, source, keys, mask)

    def noise(self, i: int) -> Tensor:
        return noise.normal(noise.fold(self.keys, i), self.mask.shape[-1], self.translator.state.dim)

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self._network(x_t, t, c, self.source)

    def denoise_without_source(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._network(x_t, t, torch.zeros_like(x_t), self.nothing)

    @cached_property
    def nothing(self) -> Source:
        """The batch without its sources; its keys and values are made once, as those of the sources are."""
        return self.translator.nothing(self.source)

    def _network(self, x_t: Tensor, t: Tensor, c: Tensor, source: Source) -> Tensor:
        rows = x_t.shape[0] * x_t.shape[1]
        flat = self.translator.denoise(
            x_t.flatten(0, 1), t.expand(rows), c.flatten(0, 1), self.mask.flatten(0, 1), source
        )
        return flat.view(x_t.shape)

    def select(self, sentences: Tensor, members: Tensor) -> Rows:
        here = sentences[:, None], members
        return replace(self, source=self.source.select(sentences), keys=self.keys[here], mask=self.mask[here])
