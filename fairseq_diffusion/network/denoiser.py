"""The denoiser: corrupted target, time and source in; the network's output out."""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.network.attention import Memory, attention_bias
from fairseq_diffusion.network.dropout import Dropout
from fairseq_diffusion.network.joint import each
from fairseq_diffusion.network.time_features import TIME_FEATURES
from fairseq_diffusion.network.transformer import Layer, Positions, Size, parameter_dtype

TIME_CONDITIONING = ("input", "norm")


class Denoiser(nn.Module):
    """Bidirectional Transformer decoder over s_t and c, with attention to the source.

    c is the self-condition, an earlier clean estimate or zeros (Chen et al. 2023); None in a denoiser without it.
    The maps from s_t and to the estimate are those of the `state`, a states.base.State, which is not kept.
    The time is added to the "input", or sets scale and offset of each layer's "norm".  Positions with the symbol
    `unseen` are attended to by themselves alone.
    """

    cross = True  # layers attend to the source

    def __init__(
        self,
        state: Any,
        size: Size,
        layers: int,
        max_positions: int,
        self_conditioned: bool = True,
        time_features: str = "fourier",
        time_activation: str = "silu",
        time_conditioning: str = "input",
        unseen: int | None = None,
        entry_norm: bool = True,
    ):
        super().__init__()
        h = size.hidden
        self.enter = state.entrance(size, self_conditioned)
        self.adaptive, self.unseen = time_conditioning == "norm", unseen
        self.time = TIME_FEATURES[time_features](h, time_activation)
        self.positions = Positions(max_positions, h)
        self.norm = nn.LayerNorm(h) if entry_norm and not size.pre_norm else nn.Identity()
        self.dropout = Dropout(size.dropout)
        self.layers = nn.ModuleList(Layer(size, self.cross, self.adaptive) for _ in range(layers))
        self.last_norm = nn.LayerNorm(h) if size.pre_norm else nn.Identity()
        self.leave = state.exit(size)

    def memory(self, source: Tensor, mask: Tensor) -> list[Memory]:
        """Each layer's keys and values of the encoded source [S, T, h]: made once, used at every step."""
        bias = attention_bias(mask, source.dtype)
        return [cast(Layer, layer).remember(source, bias) for layer in self.layers]

    def forward(self, s_t: Tensor, c: Tensor | None, t: Tensor, mask: Tensor, memory: list[Memory]) -> Tensor:
        """s_t [S K, L, ...], c [S K, L, d], t [S K], mask [S K, L] true at real positions -> [S K, L, d] in fp32; or
        pairs of these with latents."""
        dtype = parameter_dtype(self)
        x = self.enter(*(x.to(dtype) if floating(x) else x for x in (s_t, c)))
        time = self.time(t).to(x.dtype)
        x = self.dropout(x if self.adaptive else x + time[:, None])
        before = x.shape[1] - mask.shape[1]  # of a pair, its latents
        x = self.norm(x + F.pad(self.positions(mask), (0, 0, before, 0)))
        seen = mask if self.unseen is None else self._visible(s_t, mask)
        bias = attention_bias(F.pad(seen, (before, 0), value=True) if before else seen, x.dtype)
        return each(Tensor.float, self.leave(self.last_norm(self._run(x, bias, time, memory))))

    def _run(self, x: Tensor, bias: Tensor, time: Tensor, memory: list[Memory]) -> Tensor:
        """The layers, on x [S K, L, h]."""
        for layer, source in zip(self.layers, memory):
            x = layer(x, bias, source, time)
        return x

    def _visible(self, s_t: Tensor, mask: Tensor) -> Tensor:
        """What each position [N, L] may see, [N, L, L]: itself, and all that have a word."""
        return (mask & (s_t != self.unseen))[:, None] | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)


class PrefixDenoiser(Denoiser):
    """One stack over source and target side by side, in which each attends to both (Gong et al. 2023).

    The source's words are made again in every layer at every step, as what is seen of the target changes.
    """

    cross = False

    def memory(self, source: Tensor, mask: Tensor) -> list[Memory]:
        """The source [S, T, h] itself, as one head of one layer would have it."""
        return [Memory(source[:, None], source[:, None], attention_bias(mask, source.dtype))]

    def _run(self, x: Tensor, bias: Tensor, time: Tensor, memory: list[Memory]) -> Tensor:
        (source,) = memory
        candidates = x.shape[0] // source.keys.shape[0]
        words, unseen = (part.repeat_interleave(candidates, 0) for part in (source.keys[:, 0], source.bias))
        words = words.to(x.dtype) if self.adaptive else words.to(x.dtype) + time[:, None]
        x, bias = torch.cat([words, x], 1), torch.cat([unseen.to(x.dtype), bias], -1)
        for layer in self.layers:
            x = layer(x, bias, None, time)
        return x[:, words.shape[1] :]


def floating(x: Any) -> TypeGuard[Tensor]:
    """Whether this is a tensor to be cast; a pair is cast where it enters."""
    return isinstance(x, Tensor) and x.is_floating_point()


DENOISERS = {"attention": Denoiser, "prefix": PrefixDenoiser}
