"""Which times a batch is trained on: numbers u in (0, 1) that the schedule turns into times, and what each weighs."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.registry import Registry

# keys [B] -> u [B] in fp64, and importance weights [B] that make a loss over such u the loss over uniform ones
TimeSampler = Callable[[Tensor], "tuple[Tensor, Tensor]"]
TIME_SAMPLERS: Registry[TimeSampler] = Registry("time sampler")


@TIME_SAMPLERS.register("uniform")
def uniform(keys: Tensor) -> tuple[Tensor, Tensor]:
    """One u ~ U(0, 1) a sentence."""
    u = noise.uniform(keys, 1)[:, 0]
    return u, torch.ones_like(u)


@TIME_SAMPLERS.register("stratified")
def stratified(keys: Tensor) -> tuple[Tensor, Tensor]:
    """One u in each of B equal strata, in random order (CDCD section 3.3): less variance, but it looks at the batch."""
    rank = noise.uniform(noise.fold(keys, 1), 1)[:, 0].argsort().argsort()
    u, weight = uniform(keys)
    return (rank + u) / len(keys), weight


def chance(key: Tensor, p: float) -> bool:
    """True with probability p; a function of the (CPU) key alone, so ranks agree and no GPU is waited for."""
    return bool(noise.uniform(noise.fold(key, noise.Stream.SELF_CONDITIONING), 1) < p)
