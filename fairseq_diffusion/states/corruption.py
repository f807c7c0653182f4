"""What is corrupted, whether words can be read of it or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.process.level import Level


class Corruption(nn.Module, ABC):
    """s_0 [..., L, ...] at L positions, corrupted to s_t; estimates of it are [..., L, d]."""

    family: ClassVar[str]  # of the samplers that know how to step from s_t to s_s
    state_dims: ClassVar[int] = 0  # dimensions of s_t behind [..., L]
    center: Tensor | None  # what noise is around, if not 0, [d]
    expects: bool = False  # estimates say how probable words are, and x_0-hat is the mean of their vectors
    hides: bool = False  # there is a mask symbol to hide words behind
    replaces: bool = False  # words are replaced by others
    paired: bool = False  # s_t and estimates are pairs of words and latents

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("center", None)

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width d of an estimate."""

    def begin(self, update: int) -> None:
        """Called before the losses of a batch with the number of the training update, for what is learnt in stages."""

    @abstractmethod
    def encode(self, clean: Tensor) -> Tensor:
        """What is to be learnt, [B, L, ...], of words the tokens -> s_0, [B, L, ...]."""

    def draw(self, clean: Tensor, keys: Tensor) -> Tensor:
        """The s_0 that training corrupts, by random keys [B]: `encode`, unless that is noisy."""
        return self.encode(clean)

    @abstractmethod
    def corrupt(self, s_0: Tensor, level: Level, keys: Tensor, mask: Tensor) -> Tensor:
        """s_t of the shape of s_0 at `level` (which broadcasts to [B, L]), by random keys [B]; mask [B, L] is true at
        real positions."""

    def noised(self, level: Level, keys: Tensor, mask: Tensor) -> Tensor:
        """Where `corrupt` with the same keys makes noise, [B, L]: everywhere, unless it leaves words as they are."""
        return mask

    @abstractmethod
    def prior(self, keys: Tensor, mask: Tensor, level: Level) -> Tensor:
        """s_T [..., L, ...] for random keys [...] and mask [..., L]; `level` is the first of the grid, on the host."""

    @abstractmethod
    def entrance(self, size: Size, self_conditioned: bool) -> nn.Module:
        """The denoiser's map (s_t, c) -> [B, L, h], c an earlier estimate; None in a denoiser without them."""

    @abstractmethod
    def exit(self, size: Size) -> nn.Module:
        """The denoiser's map [B, L, h] -> its output [B, L, d]."""

    def error(self, estimate: Tensor, s_0: Tensor) -> Tensor | None:
        """Distance of an estimate from s_0, [B, L], to be watched in training; None where the loss terms show it."""
        return None

    def free(self, mask: Tensor) -> Tensor:
        """Where mask [..., L] is true, the positions that are corrupted and predicted: all, unless some are known."""
        return mask

    def carried(self, s_t: Tensor, estimate: Tensor, previous: Tensor) -> Tensor:
        """The estimate [..., L, d] of a step, with the previous one where s_t has a word for good."""
        return estimate

    def clean(self, estimate: Tensor) -> Tensor:
        """What samplers step with, the next estimate is conditioned on, and losses compare with s_0, [..., L, d]: the
        estimate itself, unless it says how probable words are."""
        return estimate

    def blank(self, s_t: Tensor) -> Tensor:
        """The estimate [..., L, d] that stands for none."""
        shape = *s_t.shape[: s_t.dim() - self.state_dims], self.dim
        return torch.zeros(shape, device=s_t.device)
