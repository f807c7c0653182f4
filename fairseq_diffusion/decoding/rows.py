"""A batch of candidates as the sampling loop wants it: S sentences, K candidates each, L positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fairseq_diffusion.decoding.buckets import Drafts
from fairseq_diffusion.decoding.execution import Denoise
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.diffusion import Translator
from fairseq_diffusion.translators.source import Source


@dataclass(frozen=True)
class Rows:
    """Candidates that share their sentence's encoded source.

    The network sees S K rows.  A candidate's noise is a function of its key alone, whoever stands beside it.
    """

    translator: Translator
    network: Denoise  # the translator's, however it is executed
    source: Source
    keys: Tensor  # [M, S, K], for the M noises that are drawn on the way
    mask: Tensor  # [S, K, L], true at real positions

    @classmethod
    def of(cls, translator: Translator, network: Denoise, drafts: Drafts, noises: int, draws: int) -> Rows:
        """`noises` candidates for each of the lengths to try, with noise drawn at most `draws` times."""
        lengths = drafts.lengths
        numbers = torch.arange(noises, device=lengths.device)
        keys = noise.fold(drafts.keys[:, None, None], lengths[:, :, None], numbers).flatten(1)
        keys = noise.fold(keys, torch.arange(draws, device=keys.device)[:, None, None])
        lengths = lengths.repeat_interleave(noises, 1)
        mask = torch.arange(drafts.width, device=lengths.device) < lengths[..., None]
        return cls(translator, network, drafts.source, keys, mask)

    def noise(self, i: int) -> Tensor:
        return noise.normal(self.keys[i], self.mask.shape[-1], self.translator.state.dim)

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self._denoised(x_t, t, c, self.source)

    def denoise_without_source(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._denoised(x_t, t, torch.zeros_like(x_t), self.nothing)

    @cached_property
    def nothing(self) -> Source:
        """The batch without its sources; its keys and values are made once, as those of the sources are."""
        return self.translator.nothing(self.source)

    def _denoised(self, x_t: Tensor, t: Tensor, c: Tensor, source: Source) -> Tensor:
        flat = self.network(x_t.flatten(0, 1), t[None], c.flatten(0, 1), self.flat_mask, source)
        return flat.view(x_t.shape)

    @cached_property
    def flat_mask(self) -> Tensor:
        """[S K, L]."""
        return self.mask.flatten(0, 1)

    def select(self, sentences: Tensor, members: Tensor) -> Rows:
        here = sentences[:, None], members
        keys, mask = self.keys[(slice(None), *here)], self.mask[here]
        return replace(self, source=self.source.select(sentences), keys=keys, mask=mask)
