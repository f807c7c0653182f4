"""Maps between the space of embeddings, where diffusion happens, and the hidden states of the denoiser."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_diffusion.network.dropout import Dropout
from fairseq_diffusion.network.transformer import Size, tanh_map
from fairseq_diffusion.registry import Registry


class LatentMap(NamedTuple):
    """How to build the way in, (D, size, self-conditioned) -> (x_t, c) -> h, and the way out, (D, size) -> h -> D."""

    enter: Callable[[int, Size, bool], nn.Module]
    leave: Callable[[int, Size], nn.Module]


LATENT_MAPS: Registry[LatentMap] = Registry("latent map")


class TanhEntrance(nn.Sequential):
    """Linear, tanh, linear on [x_t ; c] (DINOISER)."""

    def __init__(self, dim: int, size: Size, self_conditioned: bool):
        super().__init__(*tanh_map(2 * dim if self_conditioned else dim, 2 * size.hidden, size.hidden))

    def forward(self, x_t: Tensor, c: Tensor | None) -> Tensor:  # type: ignore[override]
        """x_t, c [B, L, D], c None without self-conditioning -> [B, L, h]."""
        return super().forward(x_t if c is None else torch.cat([x_t, c], -1))


LATENT_MAPS.register("tanh")(LatentMap(TanhEntrance, lambda dim, size: tanh_map(size.hidden, 2 * size.hidden, dim)))


class LinearEntrance(nn.Module):
    """W x_t; with self-conditioning a feed-forward map merges [W x_t ; W c] (Gao et al. 2024)."""

    def __init__(self, dim: int, size: Size, self_conditioned: bool):
        super().__init__()
        h = size.hidden
        self.project = nn.Linear(dim, h, bias=False)
        merge = (nn.Linear(2 * h, h), nn.ReLU(), nn.Linear(h, h), Dropout(size.dropout))
        self.merge = nn.Sequential(*merge) if self_conditioned else nn.Identity()

    def forward(self, x_t: Tensor, c: Tensor | None) -> Tensor:
        """x_t, c [B, L, D], c None without self-conditioning -> [B, L, h]."""
        seen = [self.project(x) for x in (x_t, c) if x is not None]
        return self.merge(torch.cat(seen, -1))


LATENT_MAPS.register("linear")(LatentMap(LinearEntrance, lambda dim, size: nn.Linear(size.hidden, dim, bias=False)))
