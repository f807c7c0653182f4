"""Gaussian noise on vectors, whatever they stand for."""

from __future__ import annotations

from torch import Tensor, nn

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.latent_maps import LATENT_MAPS, LatentMap
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.states.corruption import Corruption


class Vectors(Corruption):
    """x_t = alpha x_0 + sigma eps.  All vectors are fp32, whatever the network computes in."""

    family = "gaussian"
    state_dims = 1
    maps: LatentMap

    def corrupt(self, s_0: Tensor, level: Level, keys: Tensor, mask: Tensor) -> Tensor:
        return level.mix(s_0, noise.normal(keys, *s_0.shape[1:]))

    def prior(self, keys: Tensor, mask: Tensor, level: Level) -> Tensor:
        z = noise.normal(keys, mask.shape[-1], self.dim)
        sigma = level.of(mask.shape[-1]).sigma
        return sigma[:, None].to(z) * z if sigma.dim() else sigma * z  # a number on the host: nothing waits for it

    def entrance(self, size: Size, self_conditioned: bool) -> nn.Module:
        return self.maps.enter(self.dim, size, self_conditioned)

    def exit(self, size: Size) -> nn.Module:
        return self.maps.leave(self.dim, size)

    def error(self, estimate: Tensor, s_0: Tensor) -> Tensor | None:
        """|| x_0-hat - x_0 ||^2 / D, but where x_0-hat is a mean over all words, which is made where it is needed."""
        return None if self.expects else (estimate - s_0).square().mean(-1)


class LatentState(Vectors):
    """The latents of a target, M vectors of width d, which a part of the model makes and another reads."""

    def __init__(self, dim: int, latent_map: str = "tanh"):
        super().__init__()
        self.width, self.maps = dim, LATENT_MAPS[latent_map]

    @property
    def dim(self) -> int:
        return self.width

    def encode(self, clean: Tensor) -> Tensor:
        return clean.float()
