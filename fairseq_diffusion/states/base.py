"""The contract of a state: what is corrupted in training, and how an estimate of the clean target is read.

The network's clean estimate is always one vector a position, read against a table of V vectors, one a word.  So
likelihood, rounding and sampling are written here once, and B x L x V is never held.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.distinct import distinct
from fairseq_diffusion.kernels.expected import expected_rows
from fairseq_diffusion.kernels.log_probs import linear_cross_entropy, linear_log_probs
from fairseq_diffusion.kernels.rounding import ALL, Truncation, best_rows, round_to_rows
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.states.corruption import Corruption


class State(Corruption):
    """Words y as s_0, corrupted to s_t, and estimates of them [..., L, d] read as words again."""

    reader: Tensor | None  # the table that words are read by, if not that of their vectors, [V, d]
    banned: Tensor | None  # numbers of words that are never read or drawn

    def __init__(self, banned: Sequence[int] = ()):
        super().__init__()
        self.register_parameter("reader", None)
        self.register_buffer("banned", torch.tensor(banned) if banned else None, persistent=False)

    @classmethod
    def needs_mask(cls, cfg: Any) -> bool:
        """Whether the target dictionary gets a mask symbol, as its last entry."""
        return False

    @classmethod
    @abstractmethod
    def build(cls, words: int, symbols: Any, cfg: Any) -> State:
        """For a dictionary of `words` entries with these special symbols, by the model's flags.  Tags among the symbols
        are banned."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L] -> vectors [B, L, d], for an encoder that shares the table."""

    @abstractmethod
    def readout(self) -> Tensor:
        """What estimates are compared with, [V, d]."""

    @abstractmethod
    def table(self) -> Tensor:
        """The vectors of all words, [V, d], to which a schedule may adapt."""

    def show(self, s_t: Tensor, words: Tensor) -> Tensor:
        """s_t of the first step where `words` [..., L] are known; -1 stands for those that are not."""
        raise UserError(
            f"--complete keeps words of a template, and a state of the class {type(self).__name__} cannot; give it the "
            "methods `show` and, if its estimates are vectors of words, `settle`, or drop --complete"
        )

    def settle(self, estimate: Tensor, words: Tensor) -> Tensor:
        """The estimate [..., L, d] of a step where `words` [..., L] are known; -1 stands for those that are not."""
        return estimate

    def clean(self, estimate: Tensor) -> Tensor:
        """The estimate itself, or the mean of the words' vectors by its probabilities."""
        return self.expected(estimate) if self.expects else estimate

    def expected(self, estimate: Tensor) -> Tensor:
        """sum_y p(y | estimate) times the vector of y, [..., L, d]."""
        readout = self.readout()
        return expected_rows(estimate.flatten(0, -2), readout, self.table()[: len(readout)]).view(estimate.shape)

    def nll(self, estimate: Tensor, tokens: Tensor, label_smoothing: float = 0.0, mask: Tensor | None = None) -> Tensor:
        """-log p(tokens | estimate), estimate [B, L, d], tokens [B, L] -> [B, L]; 0 where `mask` [B, L] is false."""
        rows = None if mask is None else mask.flatten()
        flat = estimate.flatten(0, -2)
        return linear_cross_entropy(flat, self.readout(), tokens.flatten(), label_smoothing, rows).view(tokens.shape)

    def log_probs(self, estimate: Tensor, words: Tensor) -> Tensor:
        """log p(words | estimate) of M words at each position: estimate [B, L, d], words [B, L, M] -> [B, L, M]."""
        return linear_log_probs(estimate.flatten(0, 1), self.readout(), words.flatten(0, 1)).log_p.view(words.shape)

    def clean_nll(self, tokens: Tensor, s_0: Tensor, mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """-log p(tokens | their own s_0), [B, L], 0 where `mask` is false: once for each word of a batch, as all places
        of a word have one s_0."""
        words, real, place = distinct(tokens, mask)
        loss = self.nll(self.embed(words), words, label_smoothing, real)
        return loss[place].where(mask, 0.0)

    def round(self, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable tokens for an estimate [..., L, d], and their log-probabilities, both [..., L]."""
        tokens, log_p = round_to_rows(estimate.flatten(0, -2), self.readout(), self.banned)
        return tokens.view(estimate.shape[:-1]), log_p.view(estimate.shape[:-1])

    def read(self, s_t: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """The words of s_t and its estimate, [..., L], with log-probabilities: a state that shows words keeps them."""
        return self.round(estimate)

    def sample(
        self, estimate: Tensor, keys: Tensor, mask: Tensor, temperature: float = 1.0, truncation: Truncation = ALL
    ) -> Tensor:
        """Words [..., L] drawn from p(. | estimate)^(1 / temperature), truncated, by random keys [...], where mask
        [..., L] is true; elsewhere they have no meaning."""
        each = noise.fold(keys[..., None], torch.arange(estimate.shape[-2], device=keys.device))
        rows, how = estimate.flatten(0, -2) / temperature, (None, each.flatten(), truncation, mask.flatten())
        return best_rows(rows, self.readout(), self.banned, *how).view(mask.shape)

    def clamp(self, estimate: Tensor) -> Tensor:
        """An estimate [..., L, d] moved to the vectors of its most probable tokens (Li et al. 2022, section 4.2)."""
        words = best_rows(estimate.flatten(0, -2), self.readout(), self.banned)
        return self.embed(words.view(estimate.shape[:-1]))


STATES: Registry[type[State]] = Registry("state")
