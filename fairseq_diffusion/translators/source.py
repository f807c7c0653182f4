"""An encoded batch of source sentences, as all that write read it.  torch only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.network.attention import Memory, attention_bias

Own = TypeVar("Own", bound="Source")


@dataclass(frozen=True)
class Source:
    """S source sentences, read by the decoder at every step and by the length head once."""

    mask: Tensor  # [S, T], true at real tokens
    states: Tensor  # [S, T, h]
    memory: list[Memory]

    @property
    def length(self) -> Tensor:
        return self.mask.sum(-1)

    def select(self: Own, sentences: Tensor, width: int | None = None) -> Own:
        """The sentences numbered [N] alone, their real tokens side by side in T places, or `width`."""
        order = (~self.mask).long().argsort(dim=-1, stable=True)[sentences]
        order = F.pad(order, (0, 0 if width is None else width - order.shape[1]))
        mask = torch.arange(order.shape[1], device=order.device) < self.length[sentences][:, None]
        at, bias = (sentences[:, None], order), attention_bias(mask, self.states.dtype)
        memory = [Memory(taken(layer.keys, at), taken(layer.values, at), bias) for layer in self.memory]
        return replace(self, mask=mask, memory=memory, **{name: x[at] for name, x in self.by_token().items()})

    def by_token(self) -> dict[str, Tensor]:
        """What there is for each token, [S, T, h], besides the mask."""
        return {"states": self.states}


def taken(x: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """Keys or values [S, H, T, d] of the sentences [N, 1] and their tokens [N, T'] in `at` -> [N, H, T', d]."""
    return x.transpose(1, 2)[at].transpose(1, 2)
