"""The contract of every translator.  torch only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Callable, ClassVar

import torch
from torch import Tensor, nn

from fairseq_diffusion.alignment.template import Template, check_room
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.attention import Memory
from fairseq_diffusion.network.canvas import FilledCanvas
from fairseq_diffusion.network.durations import DurationHead
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import SHORTEST, LengthHead
from fairseq_diffusion.objective.contrast import CONTRAST, FrequencyContrast
from fairseq_diffusion.objective.likelihood import Likelihood
from fairseq_diffusion.objective.reduction import Mean, Reduction
from fairseq_diffusion.translators.batch import (
    Candidates,
    LatentStep,
    Lengths,
    Losses,
    OnStep,
    Source,
)
from fairseq_diffusion.translators.options import Options, check_no_latents

if TYPE_CHECKING:
    from fairseq_diffusion.translators.latents import Latents


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
    latents: Latents | None  # of a target, which its words are read from beside the source
    contrast: FrequencyContrast | None  # of the words' states, set before words are counted

    def __init__(self) -> None:
        super().__init__()
        self.latents = self.contrast = None  # no registered None, into which torch would load any weights in silence

    @property
    def has_latents(self) -> bool:
        """Whether words are read from latents, too."""
        return self.latents is not None

    @abstractmethod
    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        """Encode source tokens [S, T], mask true at real ones; the decoder does not see those `dropped` [S]."""

    @abstractmethod
    def losses(
        self,
        source: Tensor,
        source_mask: Tensor,
        target: Tensor,
        mask: Tensor,
        keys: Tensor,
        update: int,
        durations: Tensor | None = None,
    ) -> Losses:
        """The training losses of a batch.

        Args:
            source: tokens [B, T] that begin with <s>, padded on either side; `source_mask` [B, T] is true at real ones.
            target: tokens [B, L] that begin with <s>; `mask` [B, L] is true at real ones.
            keys: random keys [B]; all noise is a function of them.
            update: number of the training update.
            durations: how many words stand for each token of the source, [B, T] by the tokens' numbers, -1 in sentences
                where that is not known; for a length predictor that learns them.
        """

    def remember(self, states: Tensor, mask: Tensor) -> list[Memory]:
        """What each layer of the decoder keeps of vectors [S, T, h], of which mask is real; asked of a translator that
        has latents."""
        raise UserError(f"{self.name} models have no latents; write the method `remember` of their translator")

    def latent_step(self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, update: int) -> LatentStep:
        """The source with latents of the target beside it, where there are any, and what they cost."""
        if self.latents is None:
            return LatentStep(source)
        return self.latents.step(self, source, target, mask, keys, update)

    def latent_gains(
        self,
        source: Source,
        step: LatentStep,
        keys: Tensor,
        loss: Callable[[Source], Tensor],
        update: int,
        words: Tensor,
    ) -> dict[str, Mean]:
        """In validation, how much latents help; `loss` [B] is the mean of that of each target's `words` [B] by a
        source."""
        if self.training or self.latents is None:
            return {}
        return self.latents.gains(self, source, step, keys, loss, update, words.clamp(min=1))

    @abstractmethod
    def decoder_for(self, options: Any) -> Decoder:
        """Decoding of words under `options`, an instance of this class' Options."""

    def decoding(self, options: Any) -> Decoder:
        """The same behind that of latents, where there are any."""
        if self.latents is None:
            check_no_latents(options)
        elif options.latents_steps:
            return self.latents.decoder(self, options)
        else:
            self.latents.check_without(options)
        return self.decoder_for(options)

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
        if self.has_latents:
            raise UserError(
                "the likelihood of a model with latents (--latents) has no bound here, as the target determines them; "
                "train one without"
            )

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
        """Called when the model is built: how often each word of the target dictionary is in the training data, [V]; -1
        for symbols that are no words."""
        if self.contrast is not None:
            self.contrast.count_words(counts)

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
        self, source: Source, mask: Tensor, due: Tensor | None = None, durations: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """Loss and accuracy of the length predictor for targets of which mask [B, L] is real; empty without one.  `due`
        [B, L] is true where other losses are, if not everywhere.  With `durations`, as of `losses`, the loss is theirs
        in the sentences where they are known."""
        if self.length is None:
            return {}, {}
        logits, true = self.length(source.states, source.mask), mask.sum(-1)
        loss = self.length.loss(logits, source.length, true)
        if durations is not None:
            assert isinstance(self.length, DurationHead)  # the task refuses them for others
            aligned = self.length.aligned(source.states, source.mask, durations)
            loss = torch.where(durations[:, 0] >= 0, aligned, loss)
        means = {"length_accuracy": Mean.of(logits.argmax(-1) == self.length.class_of(source.length, true))}
        if not self.training:
            best = self.length.candidates(logits, source.length, 1)[:, 0]
            off = (best - self.room(source.length, true)).abs()
            means |= {"length_exact": Mean.of(off == 0), "length_off": Mean.of(off)}
        return {"length": self.reduction.share(loss, mask if due is None else due)}, means

    def contrast_loss(
        self, passes: list[Tensor], words: Tensor, where: Tensor, keys: Tensor, due: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The contrast of the words' states and its weight, by name; empty without one.

        Args:
            passes: the states [B, L, h] of each pass that has a loss, of which a mean is taken.
            words: [B, L], whose states they are.
            where: [B, L], true where a word is to be predicted.
            keys: random keys [B].
            due: [B, L'], true where other losses are.
        """
        if self.contrast is None:
            return {}, {}
        keys = noise.fold(keys, Stream.CONTRAST)
        values = torch.stack([self.contrast(states, words, where, keys) for states in passes]).mean(0)
        return {CONTRAST: self.reduction.share_of_mean(values, due)}, {CONTRAST: self.contrast.weight}
