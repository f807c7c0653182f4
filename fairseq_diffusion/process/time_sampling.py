"""Which noise levels a batch is trained on: uniform numbers u that the schedule turns into times.  fp64."""

from __future__ import annotations

from typing import Callable

from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.registry import Registry

TIME_SAMPLERS: Registry[Callable[[Tensor], Tensor]] = Registry("time sampler")


@TIME_SAMPLERS.register("uniform")
def uniform(keys: Tensor) -> Tensor:
    """One u ~ U(0, 1) a sentence, keys [B] -> [B]."""
    return noise.uniform(keys, 1)[:, 0]


@TIME_SAMPLERS.register("stratified")
def stratified(keys: Tensor) -> Tensor:
    """One u in each of B equal strata, in random order (CDCD section 3.3): less variance, but it looks at the batch."""
    rank = noise.uniform(noise.fold(keys, 1), 1)[:, 0].argsort().argsort()
    return (rank + uniform(keys)) / len(keys)


def coin(key: Tensor, p: float) -> bool:
    """True with probability p; a function of the (CPU) key alone, so ranks decide alike and no GPU is waited for."""
    return bool(noise.uniform(noise.fold(key, 2), 1) < p)
