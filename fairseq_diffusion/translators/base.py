"""The contract of every translator, and what passes through it: source, lengths, losses, candidates.  torch only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.alignment.base import Words
from fairseq_diffusion.alignment.template import Template, check_room
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import Memory, attention_bias
from fairseq_diffusion.network.canvas import FilledCanvas
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import SHORTEST, LengthHead
from fairseq_diffusion.objective.likelihood import Likelihood
from fairseq_diffusion.objective.reduction import Mean, Reduction
from fairseq_diffusion.translators.options import Options


@dataclass(frozen=True)
class Source:
    """S encoded source sentences, read by the decoder at every step and by the length predictor once."""

    mask: Tensor  # [S, T], true at real tokens
    states: Tensor  # [S, T, h]
    memory: list[Memory]  # keys and values of each decoder layer
    words: Tensor | None = None  # [S, T, h], the tokens' embeddings, where a decoder copies them

    @property
    def length(self) -> Tensor:
        return self.mask.sum(-1)

    def select(self, sentences: Tensor, width: int | None = None) -> Source:
        """The sentences numbered [N] alone, their real tokens side by side in T places, or `width`."""
        order = (~self.mask).long().argsort(dim=-1, stable=True)[sentences]
        order = F.pad(order, (0, 0 if width is None else width - order.shape[1]))
        mask = torch.arange(order.shape[1], device=order.device) < self.length[sentences][:, None]
        at, bias = (sentences[:, None], order), attention_bias(mask, self.states.dtype)
        memory = [Memory(_tokens_at(layer.keys, at), _tokens_at(layer.values, at), bias) for layer in self.memory]
        words = None if self.words is None else self.words[at]
        return Source(mask, self.states[at], memory, words)


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


class Decoder(ABC):
    """A translator's decoding under fixed options; made once; refuses what the translator cannot do."""

    candidates: int  # of each sentence, at most
    fixed_shapes = False  # batches come in a few shapes only
    positions_on_a_cpu = 1024  # of all candidates decoded at once, unless the user sets another number
    compile_seconds = 0.0  # spent so far on compiling

    @abstractmethod
    def __call__(self, source: Source, lengths: Lengths, keys: Tensor, on_step: OnStep | None = None) -> Candidates:
        """Candidates of S sentences.

        Args:
            source: the S encoded sentences.
            lengths: l numbers of positions for each.
            keys: random keys [S, l, n] of the n candidates at each length.
            on_step: called with every step's positions, for a history.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """How it decodes, for the log and the report."""


class Translator(nn.Module, ABC):
    """What fairseq's model wraps: source and target in, losses out; or source in, candidates out."""

    name: ClassVar[str]  # of this sort of translator, in messages
    Options: ClassVar[type[Options]]  # the decoding flags that it reads
    encoder: Encoder
    length: LengthHead | None
    filled_canvas: FilledCanvas | None = (
        None  # room for a target and </s> behind it, where it may be larger than the target
    )
    reduction: Reduction

    @abstractmethod
    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        """Encode source tokens [S, T], mask true at real ones; the decoder does not see those `dropped` [S]."""

    @abstractmethod
    def losses(
        self, source: Tensor, source_mask: Tensor, target: Tensor, mask: Tensor, keys: Tensor, update: int
    ) -> Losses:
        """The training losses of a batch.

        Args:
            source: tokens [B, T] that begin with <s>, padded on either side; `source_mask` [B, T] is true at real ones.
            target: tokens [B, L] that begin with <s>; `mask` [B, L] is true at real ones.
            keys: random keys [B]; all noise is a function of them.
            update: number of the training update.
        """

    @abstractmethod
    def decoder_for(self, options: Any) -> Decoder:
        """Decoding under `options`, an instance of this class' Options."""

    def likelihood(
        self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, samples: int, steps: int | None = None
    ) -> Likelihood:
        """-log p(y | x) of given translations, or an estimate of an upper bound on it.

        Args:
            source: the B encoded sources.
            target: tokens [B, L] that begin with <s>, padded on the right; `mask` [B, L] is true at real ones.
            keys: random keys [B]; all noise is a function of them.
            samples: draws of noise that a bound is estimated from.
            steps: T of a chain, for a model that does not have its own.
        """
        raise UserError(f"{self.name} models define no likelihood; write the method `likelihood` of their translator")

    def check_likelihood(self, samples: int, steps: int | None = None) -> None:
        """Refuse what `likelihood` cannot do with these."""

    def length_nll(self, source: Source, mask: Tensor) -> Tensor:
        """-log p(length | x) of targets of which mask [B, L] is real, [B] in fp64.  Where none is predicted it is 0, or
        inf if the canvas has no room."""
        if self.length is None:
            nll = torch.zeros(len(mask), dtype=torch.float64, device=mask.device)
            if self.filled_canvas is None:
                return nll
            return nll.masked_fill(mask.sum(-1) > self._sizes(source.length), torch.inf)
        return self.length.nll(self.length(source.states, source.mask), source.length, mask.sum(-1))

    def adapt(self, update: int) -> None:
        """Called before each training update, for schedules that adapt to what is learnt."""

    def count_words(self, counts: Tensor) -> None:
        """Called when the model is built: how often each word of the target dictionary is in the training data, [V]."""

    def lengths(self, source: Source, beam: int, how: str, template: Template | None = None) -> Lengths:
        """`beam` lengths to try for each source, chosen `how`, a name in network.length.BEAMS, and with room for the
        template; one without gaps has but one length."""
        if template is not None:
            check_room(*self.template_room(template, source.mask, beam))
        if self.length is None:
            return self._canvases(source, template)
        logits = self.length(source.states, source.mask)
        positions = self.length.candidates(logits, source.length, beam, how, template and template.size)
        if template is not None:  # one without gaps has but one length
            positions = torch.where(template.rigid[:, None], template.size[:, None], positions)
        return Lengths(positions, self.length.log_p(logits, source.length, positions), width=0, template=template)

    def _canvases(self, source: Source, template: Template | None) -> Lengths:
        """The one size that the canvas of each source has."""
        sizes = self._sizes(source.length)[:, None]
        if template is not None:
            sizes = torch.where(template.rigid[:, None], template.size[:, None], sizes)
        log_p = torch.zeros_like(sizes, dtype=torch.float)
        return Lengths(sizes, log_p, width=0, predicted=False, template=template)

    def template_room(self, template: Template, source_mask: Tensor, beam: int) -> tuple[Tensor, Tensor]:
        """How many positions templates need with `beam` lengths to try, and how many there are, [S] each, by the real
        tokens of their sources, of which mask [S, T] is true."""
        if self.length is None:
            return template.size, self._sizes(source_mask.sum(-1))
        needed = template.size + self.length.unit * (beam - 1)
        return needed, torch.full_like(needed, self.length.longest)

    def _sizes(self, source_length: Tensor) -> Tensor:
        """Of the canvases in decoding, [S]."""
        return self.room(source_length, torch.full_like(source_length, SHORTEST))

    @property
    def longest(self) -> int:
        """The most positions of a translation."""
        return max(part.longest for part in (self.length, self.filled_canvas) if part is not None)

    def room(self, source_length: Tensor, length: Tensor) -> Tensor:
        """The positions that a target of `length` [B] is trained and decoded with, [B]."""
        return length if self.filled_canvas is None else self.filled_canvas.room(source_length, length)

    def filled(self, source: Source, target: Tensor, mask: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A target [B, L], mask true at real tokens, with </s> in the room behind it, and where that is real; in
        training, with random keys [B], blanks may be between the words."""
        if self.filled_canvas is None:
            return target, mask
        return self.filled_canvas.filled(source.length, source.mask.shape[1], target, mask, keys)

    def length_loss(
        self, source: Source, mask: Tensor, due: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """Loss and accuracy of the length predictor for targets of which mask [B, L] is real; empty without one.  `due`
        [B, L] is true where other losses are, if not everywhere."""
        if self.length is None:
            return {}, {}
        logits, true = self.length(source.states, source.mask), mask.sum(-1)
        right = logits.argmax(-1) == self.length.class_of(source.length, true)
        share = self.reduction.share(self.length.loss(logits, source.length, true), mask if due is None else due)
        return {"length": share}, {"length_accuracy": Mean.of(right)}
