"""The state of Gaussian systems: target words as vectors, corrupted by noise, and rounded back to words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.kernels.cross_entropy import linear_cross_entropy
from fairseq_diffusion.kernels.rounding import round_to_rows
from fairseq_diffusion.process.level import Level

NORMS = ("none", "l2")


class EmbeddingState(nn.Module):
    """x_0 = E[y], x_t = alpha x_0 + sigma eps, and the tied rounding p(y | x) = softmax(x E^T).

    With norm "l2" every row has norm sqrt(D), that is unit variance per dimension, and the nearest row is the one
    with the largest dot product (DINOISER section 4).  All vectors are fp32, whatever the network computes in.
    """

    def __init__(self, vocabulary: int, dim: int, norm: str = "l2", init_std: float = 1e-3):
        super().__init__()
        self.norm = norm
        self.weight = nn.Parameter(torch.randn(vocabulary, dim) * init_std)

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    def _normalise(self, rows: Tensor) -> Tensor:
        rows = rows.float()
        return F.normalize(rows, dim=-1) * self.dim**0.5 if self.norm == "l2" else rows

    def table(self) -> Tensor:
        """All rows [V, D]."""
        return self._normalise(self.weight)

    def encode(self, tokens: Tensor) -> Tensor:
        """tokens [B, L] -> x_0 [B, L, D]."""
        return self._normalise(F.embedding(tokens, self.weight))

    def corrupt(self, x_0: Tensor, level: Level, eps: Tensor) -> Tensor:
        """x_t [B, L, D] ~ q(x_t | x_0)."""
        return level.mix(x_0, eps)

    def nll(self, x: Tensor, tokens: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """-log p(tokens | x), x [B, L, D], tokens [B, L] -> [B, L]; the logits are never held all at once."""
        loss = linear_cross_entropy(x.flatten(0, -2), self.table(), tokens.flatten(), label_smoothing)
        return loss.view(tokens.shape)

    def round(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable tokens for x [B, L, D], and their log-probabilities, both [B, L]."""
        tokens, log_p = round_to_rows(x.flatten(0, -2), self.table())
        return tokens.view(x.shape[:-1]), log_p.view(x.shape[:-1])
