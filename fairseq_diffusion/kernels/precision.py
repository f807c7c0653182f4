"""Modules whose tensors must not follow the network into half precision."""

from __future__ import annotations

from typing import Callable

from torch import Tensor, nn


class KeepsPrecision(nn.Module):
    """Moves between devices, but ignores ``.half()`` and ``.bfloat16()``: fairseq casts whole models that way.

    In bf16 DINOISER's twenty conditioning times in [0.99, 1] collapse to three, and a clipped sigma_min loses its
    digits.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KeepsPrecision:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor.new_empty(0)).device)

        return super()._apply(move, recurse)
