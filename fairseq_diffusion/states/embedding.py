"""Embeddings as a state: target words are vectors, corrupted by Gaussian noise, and rounded back to words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.latent_maps import LATENT_MAPS
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.prediction import EXPECTED
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.states.base import STATES, State
from fairseq_diffusion.states.vectors import Vectors


class Norm(nn.Module):
    """What a row E[y] of the weight is encoded to: itself.  Rounding compares with what rows are encoded to."""

    def __init__(self, dim: int):
        super().__init__()
        self.scale = dim**0.5

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [..., D] -> x_0 [..., D]."""
        return rows

    def readout(self, rows: Tensor) -> Tensor:
        """Rows [V, D] -> what rounding compares with, [V, D]."""
        return self(rows)


class Scaled(Norm):
    """x_0 = sqrt(D) E[y], and rounding compares with E itself, as Transformers with tied embeddings do."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.scale

    def readout(self, rows: Tensor) -> Tensor:
        return rows


class Spherical(Norm):
    """Norm sqrt(D), so unit variance per dimension: the nearest row has the largest product (DINOISER section 4)."""

    def forward(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) * self.scale


class Layered(Norm):
    """x_0 = LayerNorm(sqrt(D) E[y]), with its learned scale and shift (Gao et al. 2024, before the projection)."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, rows: Tensor) -> Tensor:
        norm = self.layer_norm
        return F.layer_norm(rows * self.scale, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)


NORMS: Registry[type[Norm]] = Registry("embedding norm")
NORMS.register("none")(Norm)
NORMS.register("scaled")(Scaled)
NORMS.register("l2")(Spherical)
NORMS.register("layer")(Layered)


@STATES.register("embedding")
class EmbeddingState(Vectors, State):
    """x_0 from E[y], x_t = alpha x_0 + sigma eps, and the tied rounding p(y | x) = softmax(x E^T).

    With `noise_std` > 0, x_0 itself is noisy in training (Li et al. 2022): x_0 = E[y] + noise_std eps_0.

    With `soft_absorb` r > 0 there is a learned vector c (Gong et al. 2023b): x_t = alpha (x_0 - c) + c + sigma eps, but
    c itself with probability r sigma (at unit variance).

    With `own_readout` words are read by a table W of its own, softmax(x W^T), which starts as E (Strudel et al. 2022).
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        norm: str = "l2",
        init_std: float = 1e-3,
        latent_map: str = "tanh",
        banned: Sequence[int] = (),
        expects: bool = False,
        soft_absorb: float = 0.0,
        noise_std: float = 0.0,
        own_readout: bool = False,
    ):
        super().__init__(banned)
        self.expects, self.soft_absorb, self.noise_std = expects, soft_absorb, noise_std
        self.center = nn.Parameter(torch.randn(dim) * dim**-0.5) if soft_absorb else None
        self.weight = nn.Parameter(torch.randn(vocabulary, dim) * init_std)
        self.norm = NORMS[norm](dim)
        self.maps = LATENT_MAPS[latent_map]
        self.reader = nn.Parameter(self.norm.readout(self.weight.detach()).clone()) if own_readout else None

    @classmethod
    def needs_mask(cls, cfg: Any) -> bool:
        """For a canvas with blanks between the words."""
        return getattr(cfg, "canvas_blanks", 0.0) > 0

    @classmethod
    def build(cls, words: int, symbols: Any, cfg: Any) -> EmbeddingState:
        norm, latent_map = str(cfg.embedding_norm), str(cfg.latent_map)
        how = str(cfg.prediction) in EXPECTED, cfg.soft_absorb, cfg.embedding_noise, cfg.own_readout
        return cls(words, cfg.latent_dim, norm, cfg.embedding_init_std, latent_map, symbols.tags, *how)

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    def table(self) -> Tensor:
        return self.norm(self.weight.float())

    def readout(self) -> Tensor:
        return self.norm.readout(self.weight.float()) if self.reader is None else self.reader.float()

    def encode(self, tokens: Tensor) -> Tensor:
        return self.norm(F.embedding(tokens, self.weight).float())

    def draw(self, tokens: Tensor, keys: Tensor) -> Tensor:
        x_0 = self.encode(tokens)
        if not self.noise_std:
            return x_0
        return x_0 + self.noise_std * noise.normal(noise.fold(keys, Stream.CLEAN), *x_0.shape[1:])

    def embed(self, tokens: Tensor) -> Tensor:
        return self.encode(tokens)

    def clean_nll(self, tokens: Tensor, s_0: Tensor, mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
        if self.noise_std:
            return self.nll(s_0, tokens, label_smoothing, mask)
        return super().clean_nll(tokens, s_0, mask, label_smoothing)

    def corrupt(self, s_0: Tensor, level: Level, keys: Tensor, mask: Tensor) -> Tensor:
        if self.center is None:
            return super().corrupt(s_0, level, keys, mask)
        c, u = self.center.float(), noise.uniform(noise.fold(keys, 1), s_0.shape[1])
        absorbed = u < self.soft_absorb * (level.sigma / torch.hypot(level.alpha, level.sigma)).to(u)
        return torch.where(absorbed[..., None], c, super().corrupt(s_0 - c, level, keys, mask) + c)

    def prior(self, keys: Tensor, mask: Tensor, level: Level) -> Tensor:
        z = super().prior(keys, mask, level)
        return z if self.center is None else self.center.float() + z

    def show(self, s_t: Tensor, words: Tensor) -> Tensor:
        """As it is: the sampler's own steps, which all have x_0 for their estimate, lead from noise to q(x_t | x_0)."""
        return s_t

    def settle(self, estimate: Tensor, words: Tensor) -> Tensor:
        return torch.where((words >= 0)[..., None], self.encode(words.clamp(min=0)), estimate)
