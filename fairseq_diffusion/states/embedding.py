"""The state of Gaussian systems: target words as vectors, corrupted by noise, and rounded back to words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.kernels.cross_entropy import linear_cross_entropy
from fairseq_diffusion.kernels.distinct import distinct
from fairseq_diffusion.kernels.rounding import best_rows, round_to_rows
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.registry import Registry


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


class EmbeddingState(nn.Module):
    """x_0 from E[y], x_t = alpha x_0 + sigma eps, and the tied rounding p(y | x) = softmax(x E^T).

    All vectors are fp32, whatever the network computes in.
    """

    def __init__(self, vocabulary: int, dim: int, norm: str = "l2", init_std: float = 1e-3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocabulary, dim) * init_std)
        self.norm = NORMS[norm](dim)

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    def table(self) -> Tensor:
        """What all words are encoded to, [V, D]."""
        return self.norm(self.weight.float())

    def readout(self) -> Tensor:
        """What rounding compares vectors with, [V, D]."""
        return self.norm.readout(self.weight.float())

    def encode(self, tokens: Tensor) -> Tensor:
        """tokens [B, L] -> x_0 [B, L, D]."""
        return self.norm(F.embedding(tokens, self.weight).float())

    def corrupt(self, x_0: Tensor, level: Level, eps: Tensor) -> Tensor:
        """x_t [B, L, D] ~ q(x_t | x_0)."""
        return level.mix(x_0, eps)

    def nll(self, x: Tensor, tokens: Tensor, label_smoothing: float = 0.0, mask: Tensor | None = None) -> Tensor:
        """-log p(tokens | x), x [B, L, D], tokens [B, L] -> [B, L]; the logits are never held all at once.

        Where `mask` [B, L] is false it is 0, whatever x is there.
        """
        rows = None if mask is None else mask.flatten()
        loss = linear_cross_entropy(x.flatten(0, -2), self.readout(), tokens.flatten(), label_smoothing, rows)
        return loss.view(tokens.shape)

    def clean_nll(self, tokens: Tensor, mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """-log p(tokens | x_0), tokens [B, L] -> [B, L], 0 where `mask` is false: once for each word of a batch."""
        words, real, place = distinct(tokens, mask)
        loss = self.nll(self.encode(words), words, label_smoothing, real)
        return loss[place].where(mask, 0.0)

    def round(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable tokens for x [B, L, D], and their log-probabilities, both [B, L]."""
        tokens, log_p = round_to_rows(x.flatten(0, -2), self.readout())
        return tokens.view(x.shape[:-1]), log_p.view(x.shape[:-1])

    def clamp(self, x: Tensor) -> Tensor:
        """x [B, L, D] moved to the vectors of its most probable tokens (Li et al. 2022, section 4.2)."""
        return self.encode(best_rows(x.flatten(0, -2), self.readout()).view(x.shape[:-1]))
