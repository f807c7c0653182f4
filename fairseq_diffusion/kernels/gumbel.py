"""Gumbel noise over words, drawn from keys: the argmax of logits with it is a sample of their softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise

LARGEST = 1 - 2.0**-24  # the largest fp32 below 1


def gumbel(keys: Tensor, count: int) -> Tensor:
    """Gumbel(0, 1) in fp32 for `count` words, keys [N] -> [N, count]; a word's does not depend on `count`."""
    return from_bits(noise.fold(keys[:, None], torch.arange(count, device=keys.device)))


def from_bits(bits: Tensor) -> Tensor:
    """-log E with E = -log(1 - w) exponential, w in (0, 1) from the upper 53 of 64 random bits.

    The words that win have a small w; fp32 keeps its digits there, and log1p those of E.
    """
    w = (((bits >> 11) & (2**53 - 1)).float() + 0.5) * 2.0**-53
    return -(-torch.log1p(-w.clamp(max=LARGEST))).log()
