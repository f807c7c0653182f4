"""Decoding with latents: those of each candidate from noise, and then its words.  torch only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.translators.base import Decoder
from fairseq_diffusion.translators.batch import Candidates, Draft, HistoryStep, Lengths, OnStep, Source

if TYPE_CHECKING:
    from fairseq_diffusion.translators.base import Translator
    from fairseq_diffusion.translators.latents import Latents


class LatentDecoder(Decoder):
    """Each candidate has latents of its own, so to the decoder of words it is a sentence of its own."""

    def __init__(self, translator: Translator, latents: Latents, options: Any):
        """Whatever `options` ask that `translator` cannot do is refused here."""
        if getattr(options, "prune_after", ""):
            raise UserError(
                "--prune-after compares candidates that are decoded side by side, and with latents each is decoded by "
                "itself; drop it, or pass --latents-steps 0"
            )
        if options.latents_guidance != 1:
            latents.null_source()
        self.translator, self.latents, self.options = translator, latents, options
        self.course = latents.course(options.latents_steps)
        self.words = translator.decoder_for(replace(options, noise_beam=1))
        self.candidates = self.words.candidates * options.noise_beam
        self.fixed_shapes, self.positions_on_a_cpu = self.words.fixed_shapes, self.words.positions_on_a_cpu

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        return self.words.compile_seconds

    def __call__(self, source: Source, lengths: Lengths, keys: Tensor, on_step: OnStep | None = None) -> Candidates:
        o, each = self.options, keys.flatten(1)
        made = self.latents.make(source, noise.fold(each, Stream.LATENTS, 0), self.course, o.latents_guidance)
        sentences = torch.arange(len(each), device=each.device).repeat_interleave(each.shape[1])
        u, present = made.u.flatten(0, 1), torch.ones_like(sentences, dtype=torch.bool)
        rows = self.latents.beside(self.translator, source.select(sentences), u, present)
        watch = None if on_step is None else lambda step: on_step(HistoryStep(*(of_sentences(x, each) for x in step)))
        found = self.words(rows, one_each(lengths, keys), each.reshape(-1, 1, 1), watch).each(
            lambda x: of_sentences(x, each)
        )
        of_each = found.calls.shape[1] // each.shape[1]
        rank = torch.arange(keys.shape[1], device=keys.device).repeat_interleave(keys.shape[2] * of_each)
        return found._replace(
            calls=found.calls + made.calls.repeat_interleave(of_each, 1),
            length_rank=(rank if lengths.predicted else 0 * rank).expand(found.calls.shape),
        )

    def settings(self) -> dict[str, Any]:
        o = self.options
        return {**self.words.settings(), "latents_steps": o.latents_steps, "latents_guidance": o.latents_guidance}


def of_sentences(x: Tensor, keys: Tensor) -> Tensor:
    """What each of the candidates, [S K, c, ...] with keys [S, K], has, [S, K c, ...]."""
    return x.reshape(len(keys), -1, *x.shape[2:])


def one_each(lengths: Lengths, keys: Tensor) -> Lengths:
    """The one length of each of the S l n candidates with keys [S, l, n]."""
    positions, log_p = (
        x.repeat_interleave(keys.shape[2], 1).reshape(-1, 1) for x in (lengths.positions, lengths.log_p)
    )
    candidates = keys.shape[1] * keys.shape[2]
    draft = lengths.draft and Draft(*(x.repeat_interleave(candidates, 0) for x in lengths.draft))
    sentences = torch.arange(len(keys), device=keys.device).repeat_interleave(candidates)
    template = lengths.template and lengths.template.select(sentences)
    return Lengths(positions, log_p, lengths.width, lengths.predicted, draft, template)
