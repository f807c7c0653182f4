"""A second state for the tests, in a folder of its own as a user would write it: the mask symbol hides words.

Each position of s_t is its word with probability a = alpha^2, else the mask (D3PM's absorbing kernel, Austin et al.
2021); an ancestral step from t to s reveals a masked position with probability (a_s - a_t) / (1 - a_t), as a word drawn
from the estimate.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import fairseq_diffusion
import fairseq_diffusion.systems  # noqa: F401  enters the presets that ours starts from
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.loop import SAMPLERS
from fairseq_diffusion.states.base import STATES, State
from fairseq_diffusion.systems.presets import preset


class Entrance(nn.Module):
    def __init__(self, state):
        super().__init__()
        self.state = (state,)  # out of sight in a tuple: the table is saved under the state's name alone
        self.project = nn.Linear(state.dim, state.dim)

    def forward(self, s_t, c):
        return self.project(self.state[0].embed(s_t))


@STATES.register("absorbing")
class AbsorbingState(State):
    """Tokens, some of them masked; estimates are hidden states, read against the output words."""

    family = "hidden words"

    def __init__(self, words, dim):
        super().__init__()
        self.weight, self.mask = nn.Parameter(torch.randn(words, dim) * dim**-0.5), words - 1

    @classmethod
    def needs_mask(cls, cfg):
        return True

    @classmethod
    def build(cls, words, symbols, cfg):
        return cls(words, cfg.hidden)

    @property
    def dim(self):
        return self.weight.shape[1]

    def encode(self, tokens):
        return tokens

    def embed(self, tokens):
        return F.embedding(tokens, self.weight) * self.dim**0.5

    def corrupt(self, s_0, level, keys, mask):
        return torch.where(noise.uniform(keys, s_0.shape[1]) < level.alpha.square(), s_0, self.mask)

    def prior(self, keys, mask, level):
        return torch.full_like(mask, self.mask, dtype=torch.long)

    def entrance(self, size, self_conditioned):
        return Entrance(self)

    def exit(self, size):
        return nn.Identity()

    def readout(self):
        return self.weight[: self.mask].float()

    def table(self):
        return self.weight

    def error(self, estimate, s_0):
        return self.nll(estimate, s_0)

    def read(self, s_t, estimate):
        tokens = torch.where(s_t == self.mask, self.round(estimate)[0], s_t)
        return tokens, -self.nll(estimate, tokens)


class Reveal(NamedTuple):
    probability: float
    draws: bool = True

    def __call__(self, batch, s_t, estimate, previous, keys):
        words = batch.state.sample(estimate, keys, batch.free)
        reveal = noise.uniform(noise.fold(keys, 1), s_t.shape[-1]) < self.probability
        return torch.where((s_t == batch.state.mask) & reveal, words, s_t)


class Revealing(NamedTuple):
    family: str = "hidden words"
    needs_hidden: bool = False
    needs_replaced: bool = False
    conditioning: None = None
    word_temperature: float = 1.0

    def steps(self, grid, eta=None, temperature=1.0, drawing=None):
        a = grid.level.alpha.square()
        return [Reveal(p) for p in ((a[1:] - a[:-1]) / (1 - a[:-1])).tolist()]

    def busy(self, batch, steps, s):
        return None


SAMPLERS.register("reveal")(Revealing())
preset(
    "absorbing_toy",
    base="dinoiser_toy",
    state="absorbing",
    schedule="log_linear",
    schedule_modifier="none",
    objective="anchor=1",
    self_conditioning="none",
    sampler="reveal",
)
fairseq_diffusion.load()
