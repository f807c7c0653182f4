"""Noise as a pure function of a key: no generator state, so nothing to save, and nothing depends on the batch.

A sentence's noise is the same whatever batch, rank, device or run it is drawn in; a resumed training draws what the
uninterrupted one would have drawn.  Keys and counters are mixed by the finaliser of SplitMix64 (Steele et al. 2014).
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
LARGEST = 1 - 2.0**-24  # the largest fp32 below 1


class Stream(IntEnum):
    """Independent random streams of one sentence: fold its key with one of these."""

    TIME = 0
    STATE = 1
    SELF_CONDITIONING = 2
    SOURCE_DROP = 3
    UNROLL = 4
    CLEAN = 5
    BLANKS = 6
    WORD_TIMES = 7
    LATENTS = 8
    CONTRAST = 9
    PREFIXES = 10


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's >> keeps the sign)."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: a bijection of 64-bit integers that looks random."""
    x = (x ^ _shift(x, 30)) * MULTIPLIERS[0]
    x = (x ^ _shift(x, 27)) * MULTIPLIERS[1]
    return x ^ _shift(x, 31)


def _wrapped(value: int) -> int:
    """As int64 arithmetic wraps; done here so that no constant has to travel to a GPU."""
    return (value + 2**63) % 2**64 - 2**63


def fold(key: Tensor, *data: Tensor | int) -> Tensor:
    """A new key [...] for each combination of `key` [...] and the integers in `data` (which broadcast against it)."""
    for value in data:
        key = _mix(key + GOLDEN) ^ (_wrapped(value * GOLDEN) if isinstance(value, int) else value * GOLDEN)
    return _mix(key)


def sentence_keys(seed: int, tokens: Tensor, mask: Tensor) -> Tensor:
    """Keys [B] from the tokens [B, L] of sentences where `mask` is true: they do not depend on batching and padding."""
    place = mask.long().cumsum(-1)
    words = torch.where(mask, _mix(tokens.long() * GOLDEN + place), 0)
    return fold(words.cumsum(-1)[..., -1], seed)  # the sum, which ONNX Runtime does not add up exactly


def _bits(key: Tensor, count: int) -> Tensor:
    """Random int64 [..., count] for keys [...]."""
    counter = torch.arange(1, count + 1, device=key.device)
    return _mix(key[..., None] + counter * GOLDEN)


def uniform(key: Tensor, count: int) -> Tensor:
    """U(0, 1) in fp64, [..., count], never 0 or 1."""
    return (_shift(_bits(key, count), 12).double() + 0.5) * 2.0**-52


def normal(key: Tensor, length: int, dim: int) -> Tensor:
    """N(0, 1) in fp32, [..., length, dim] by Box-Muller; a prefix does not depend on `length`."""
    bits = _bits(key, length * dim)
    radius = (-2 * (((_shift(bits, 32)).double() + 0.5) * 2.0**-32).log()).sqrt()
    angle = 2 * math.pi * 2.0**-32 * (bits & (2**32 - 1)).double()
    return (radius * angle.cos()).float().view(*key.shape, length, dim)


def gumbel(key: Tensor, count: int) -> Tensor:
    """Gumbel(0, 1) in fp32 for `count` words, [..., count]; a word's does not depend on `count`.

    The argmax of logits with it is a sample of their softmax.
    """
    return gumbel_of(fold(key[..., None], torch.arange(count, device=key.device)))


def gumbel_of(bits: Tensor) -> Tensor:
    """-log E with E = -log(1 - w) exponential, w in (0, 1) from the upper 53 of 64 random bits.

    The words that win have a small w; fp32 keeps its digits there, and log1p those of E.
    """
    w = (_shift(bits, 11).float() + 0.5) * 2.0**-53
    return -(-torch.log1p(-w.clamp(max=LARGEST))).log()
