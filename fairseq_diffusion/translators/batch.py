"""What passes through a translator: source, lengths, losses, latents, candidates.  torch only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.alignment.base import Words
from fairseq_diffusion.alignment.template import Template
from fairseq_diffusion.network.attention import Memory, attention_bias, side_by_side
from fairseq_diffusion.objective.reduction import Mean


@dataclass(frozen=True)
class Source:
    """S encoded source sentences, read by the decoder at every step and by the length predictor once."""

    mask: Tensor  # [S, T], true at real tokens
    states: Tensor  # [S, T, h]
    memory: list[Memory]  # keys and values of each decoder layer
    words: Tensor | None = None  # [S, T, h], the tokens' embeddings, where a decoder copies them
    latents: Tensor | None = None  # [S, M], true at those of M latents that stand behind the tokens in the memory

    @property
    def length(self) -> Tensor:
        return self.mask.sum(-1)

    def select(self, sentences: Tensor, width: int | None = None) -> Source:
        """The sentences numbered [N] alone, their real tokens side by side in T places, or `width`."""
        order = (~self.mask).long().argsort(dim=-1, stable=True)[sentences]
        order = F.pad(order, (0, 0 if width is None else width - order.shape[1]))
        mask = torch.arange(order.shape[1], device=order.device) < self.length[sentences][:, None]
        at, seen, latents = (sentences[:, None], order), mask, self.latents
        words = None if self.words is None else self.words[at]
        states = self.states[at]
        if latents is not None:
            behind = torch.arange(latents.shape[1], device=order.device).expand(len(order), -1) + self.mask.shape[1]
            latents = latents[sentences]
            at, seen = (at[0], torch.cat([order, behind], 1)), torch.cat([mask, latents], 1)
        bias = attention_bias(seen, states.dtype)
        memory = [Memory(_tokens_at(layer.keys, at), _tokens_at(layer.values, at), bias) for layer in self.memory]
        return Source(mask, states, memory, words, latents)

    def memory_of_latents(self) -> tuple[list[Memory], Tensor]:
        """What `beside` was given."""
        assert self.latents is not None
        count = self.latents.shape[1]
        memory = [
            Memory(layer.keys[..., -count:, :], layer.values[..., -count:, :], layer.bias[..., -count:])
            for layer in self.memory
        ]
        return memory, self.latents

    def beside(self, memory: list[Memory], mask: Tensor) -> Source:
        """With each layer's memory of M latents, of which mask [S, M] is real, beside that of the tokens."""
        return replace(self, memory=side_by_side(self.memory, memory), latents=mask)


def _tokens_at(x: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """Keys or values [S, H, T, d] of the sentences [N, 1] and their tokens [N, T'] in `at` -> [N, H, T', d]."""
    return x.transpose(1, 2)[at].transpose(1, 2)


class Draft(NamedTuple):
    """Translations of S sentences to begin with, <s> and </s> around each."""

    tokens: Tensor  # [S, L]
    log_p: Tensor  # [S, L], of the words; 0 elsewhere


class Lengths(NamedTuple):
    """The l numbers of positions to decode each of S sentences with."""

    positions: Tensor  # [S, l]
    log_p: Tensor  # [S, l], of the length predictor; 0 where there is none
    width: int  # room for the longest
    predicted: bool = True  # false where they are given, or a function of the source's length
    draft: Draft | None = None  # whose length it is, the only one
    template: Template | None = None  # words that translations contain

    def select(self, sentences: Tensor, width: int) -> Lengths:
        """Those of the sentences numbered [N]."""
        draft = self.draft and Draft(*(F.pad(x[sentences], (0, width - x.shape[1])) for x in self.draft))
        template = self.template and self.template.select(sentences)
        return Lengths(self.positions[sentences], self.log_p[sentences], width, self.predicted, draft, template)


class HistoryStep(NamedTuple):
    """All positions of all candidates at one step of decoding; --retain-iter-history keeps them."""

    tokens: Tensor  # [S, K, L], special symbols too
    log_p: Tensor  # [S, K, L], nan where nothing is predicted yet
    sizes: Tensor  # [S, K], positions of each candidate


OnStep = Callable[[HistoryStep], None]


class Candidates(NamedTuple):
    """K finished translations of each of S sentences."""

    tokens: Tensor  # [S, K, L] without special symbols; -1 behind the end
    sizes: Tensor  # [S, K]
    log_p: Tensor  # [S, K, L + 1], of the words and then of the end
    scores: Tensor  # [S, K], mean log-probability of the words and the end
    joint: Tensor  # [S, K], the same mean with the log-probability of the length in the sum
    length_rank: Tensor  # [S, K], which of the lengths tried each has
    calls: Tensor  # [S, K], network calls
    alive: Tensor  # [S, K], false for candidates that were dropped on the way

    @classmethod
    def of(
        cls, words: Words, lengths: Lengths, calls: Tensor, alive: Tensor | None = None, length_penalty: float = 1.0
    ) -> Candidates:
        """Words moved together and scored: their log-probabilities, summed over words and end, are divided by that
        number to the power of `length_penalty`.  K is a multiple of the l lengths."""
        each = words.mask.shape[1] // lengths.positions.shape[1]
        rank = torch.arange(words.mask.shape[1], device=calls.device) // each
        sizes, end = words.mask.sum(-1), words.end_log_p[..., None]
        order = (~words.mask).long().argsort(dim=-1, stable=True)
        place = torch.arange(words.mask.shape[-1] + 1, device=calls.device)
        real = place[:-1] < sizes[..., None]
        log_p = words.log_p.gather(-1, order).masked_fill(~real, 0)
        log_p = torch.where(place == sizes[..., None], end, torch.cat([log_p, torch.zeros_like(end)], -1))
        total, weight = log_p.double().sum(-1), (sizes + 1.0) ** length_penalty
        return cls(
            tokens=words.tokens.gather(-1, order).masked_fill(~real, -1),
            sizes=sizes,
            log_p=log_p,
            scores=total / weight,
            joint=(total + lengths.log_p.repeat_interleave(each, 1).double()) / weight,
            length_rank=(rank if lengths.predicted else rank * 0).expand(sizes.shape),
            calls=calls,
            alive=torch.ones_like(sizes, dtype=torch.bool) if alive is None else alive,
        )

    def each(self, change: Callable[[Tensor], Any]) -> Candidates:
        """With every field changed alike."""
        return Candidates(*map(change, self))


@dataclass(frozen=True)
class Losses:
    """What a batch costs: one number to minimise, and what is logged."""

    total: Tensor  # [], the weighted sum over the batch, to be divided by `sample_size`
    terms: dict[str, Tensor]  # [B] each, unweighted and detached
    sample_size: int | Tensor
    means: dict[str, Mean]
    state: dict[str, Any] = field(default_factory=dict)  # numbers that do not depend on the batch

    @classmethod
    def of(cls, terms: dict[str, Tensor], weights: dict[str, float], **logged: Any) -> Losses:
        """Of each term's shares [B]; a term without weight takes no part in the backward pass."""
        zero = next(iter(terms.values())).new_zeros(())
        total = sum((weights[name] * share.sum() for name, share in terms.items() if weights[name]), start=zero)
        return cls(total, {name: share.detach() for name, share in terms.items()}, **logged)


@dataclass(frozen=True)
class LatentStep:
    """A source with latents of its target beside it, and what they cost, [B] each."""

    source: Source
    u: Tensor | None = None  # [B, M, D]
    losses: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
