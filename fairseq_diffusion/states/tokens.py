"""Tokens as a state: target words are hidden behind a mask symbol, or replaced by other words."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.canvas import FILLED
from fairseq_diffusion.network.transformer import Size, entry_scale
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.token_kernel import TokenKernel
from fairseq_diffusion.states.base import STATES, State


class Entrance(nn.Module):
    """The vectors of s_t's words, scaled; with self-conditioning a linear map of the earlier estimate is added."""

    def __init__(self, state: TokenState, self_conditioned: bool):
        super().__init__()
        self.state = (state,)  # out of sight in a tuple: the table is saved under the state's name alone
        self.condition = nn.Linear(state.dim, state.dim) if self_conditioned else None

    def forward(self, s_t: Tensor, c: Tensor | None) -> Tensor:
        """s_t [B, L], c [B, L, h] or None -> [B, L, h]."""
        state = self.state[0]
        x = state.scale * state.embed(state.plain(s_t))
        return x if c is None or self.condition is None else x + self.condition(c)


@STATES.register("tokens")
class TokenState(State):
    """Words y_t of which a share alpha^2 is kept; the others are hidden or replaced (see process.token_kernel).

    An estimate is the denoiser's last hidden state, read against output words that are tied to the input's.  <s> and
    </s> around a sentence are known with its length, so they are neither corrupted nor predicted.

    In sampling a word may be shown: it is there for good, with the estimate that it was read from.  Where words are
    only ever hidden, these are all that are seen.  Elsewhere noise looks like words, so a shown word w is w + V in s_t,
    which the network does not see.
    """

    family = "categorical"
    banned: Tensor

    def __init__(
        self, words: int, dim: int, symbols: Any, mask_share: float = 1.0, scale: float = 1.0, fills: bool = False
    ):
        """
        Args:
            words: entries of the dictionary, the mask symbol included.
            dim: h.
            symbols: the numbers of the special symbols bos, pad, eos, unk and mask, and of the tags.
            mask_share: of the corrupted words, those that are hidden.
            scale: of the vectors of s_t's words as the denoiser reads them.
            fills: a canvas is filled up with </s>, which is then a word to predict.
        """
        ends = [symbols.bos, symbols.pad] if fills else [symbols.bos, symbols.pad, symbols.eos]
        super().__init__([*ends, *symbols.tags])
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(words, dim) * dim**-0.5)
        self.bos, self.pad, self.eos, self.mask = symbols.bos, symbols.pad, symbols.eos, symbols.mask
        first = max(symbols.bos, symbols.pad, symbols.eos, symbols.unk) + 1
        self.hides, self.replaces = self.mask >= 0, mask_share < 1
        self.words = words - self.hides  # that can be read: the mask is the last
        number = torch.arange(words)
        drawn = (number >= first) & (number < self.words) & ~torch.isin(number, self.banned)
        self.kernel = TokenKernel(mask_share, drawn, self.mask)

    @classmethod
    def needs_mask(cls, cfg: Any) -> bool:
        return getattr(cfg, "mask_share", 1.0) > 0

    @classmethod
    def build(cls, words: int, symbols: Any, cfg: Any) -> TokenState:
        return cls(words, cfg.hidden, symbols, cfg.mask_share, entry_scale(cfg), cfg.length_target in FILLED)

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    def encode(self, tokens: Tensor) -> Tensor:
        return tokens

    def embed(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)

    def free(self, mask: Tensor) -> Tensor:
        """All but the first and the last real position."""
        place = mask.long().cumsum(-1)
        return mask & (place > 1) & (place < place[..., -1:])

    def noised(self, level: Level, keys: Tensor, mask: Tensor) -> Tensor:
        u = noise.uniform(keys, mask.shape[1])
        return self.free(mask) & (u >= level.alpha.to(u).square())

    def corrupt(self, s_0: Tensor, level: Level, keys: Tensor, mask: Tensor) -> Tensor:
        words = self.kernel.noise(noise.uniform(noise.fold(keys, 1), s_0.shape[1]))
        return torch.where(self.noised(level, keys, mask), words, s_0)

    def prior(self, keys: Tensor, mask: Tensor, level: Level) -> Tensor:
        words = self.kernel.noise(noise.uniform(keys, mask.shape[-1]))
        known = torch.where(mask.long().cumsum(-1) == 1, self.bos, self.eos).where(mask, self.pad)
        return torch.where(self.free(mask), words, known)

    def show(self, s_t: Tensor, words: Tensor) -> Tensor:
        return torch.where(words >= 0, words, s_t)

    def entrance(self, size: Size, self_conditioned: bool) -> nn.Module:
        return Entrance(self, self_conditioned)

    def exit(self, size: Size) -> nn.Module:
        return nn.Identity()

    def table(self) -> Tensor:
        return self.weight.float()

    def readout(self) -> Tensor:
        return self.weight[: self.words].float()

    def hidden(self, s_t: Tensor) -> Tensor:
        """Where s_t [...] has no word that is shown."""
        return s_t < len(self.weight) if self.replaces else s_t == self.mask

    def shown(self, words: Tensor) -> Tensor:
        """These words [...] as s_t has them once they are shown."""
        return words + len(self.weight) if self.replaces else words

    def plain(self, s_t: Tensor) -> Tensor:
        """s_t [...] without the difference between shown words and others."""
        return s_t % len(self.weight)

    def known(self, s_t: Tensor) -> Tensor:
        """Where s_t [..., L] has a symbol that was there from the start: <s>, and the last </s>."""
        behind = F.pad(s_t[..., 1:], (0, 1), value=self.pad)
        return (s_t == self.bos) | (s_t == self.pad) | ((s_t == self.eos) & (behind == self.pad))

    def carried(self, s_t: Tensor, estimate: Tensor, previous: Tensor) -> Tensor:
        return torch.where(self.hidden(s_t)[..., None], estimate, previous)

    def read(self, s_t: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
        words, log_p = self.round(estimate)
        known = self.known(s_t)
        shown = ~self.hidden(s_t) & ~known
        words = torch.where(shown, self.plain(s_t), words)
        log_p = torch.where(shown, -self.nll(estimate, torch.where(shown, words, self.eos), mask=shown), log_p)
        return torch.where(known, s_t, words), log_p.masked_fill(known, 0)
