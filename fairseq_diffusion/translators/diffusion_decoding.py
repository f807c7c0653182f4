"""Decoding with a diffusion translator: lengths and noises as batch rows, sample, read words.  torch only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, cast

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Words, side_by_side, without_repeats
from fairseq_diffusion.alignment.template import Known, Template, known_words
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import choice, noise
from fairseq_diffusion.kernels.launch import power_of_two
from fairseq_diffusion.network.joint import each
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.samplers.early_exit import ActiveRows, EarlyExit
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.joint import joint_steps
from fairseq_diffusion.samplers.loop import Refinement, Sample, from_noise, refined, sample, sampler_for
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.base import Decoder
from fairseq_diffusion.translators.batch import Candidates, HistoryStep, Lengths, OnStep, Source
from fairseq_diffusion.translators.diffusion_options import (
    DiffusionOptions,
    check_draws,
    check_prediction,
    check_words,
)
from fairseq_diffusion.translators.execution import EAGER, Denoise, Prepared

if TYPE_CHECKING:
    from fairseq_diffusion.translators.chain import Chain
    from fairseq_diffusion.translators.diffusion import DiffusionTranslator


@dataclass(frozen=True)
class Rows:
    """S x K candidates of a chain as the sampling loop sees them; those of a sentence share its encoded source.

    The network sees S K rows.  A candidate's noise is a function of its key alone, whatever else is in the batch.
    """

    chain: Chain
    network: Denoise  # the chain's, however it is executed
    source: Source
    keys: Tensor  # [M, S, K], for the M random numbers that are drawn on the way
    mask: Tensor  # [S, K, L], true at real positions
    null: Source | None = None  # the batch without its sources, for guidance
    known: Known | None = None  # [S, K, L], words of a template

    @property
    def state(self) -> State:
        return cast(State, self.chain.state)

    @property
    def free(self) -> Tensor:
        free = self.state.free(self.mask)
        return free if self.known is None else free & (self.known.tokens < 0)

    def settle(self, estimate: Tensor) -> Tensor:
        return estimate if self.known is None else self.state.settle(estimate, self.known.tokens)

    def with_template(self, template: Template, estimate: Tensor) -> Rows:
        """The same with the words of templates known, at their most probable places by an estimate [S, K, L, d]."""
        each = template.each(self.mask.shape[1])
        log_p = self.state.log_probs(estimate.flatten(0, 1), each.at(self.mask.shape[2]))
        known = known_words(log_p, each, self.mask.sum(-1).flatten())
        return replace(self, known=Known(*(part.view(self.mask.shape) for part in known)))

    def read(self, s_t: Tensor, estimate: Tensor, index: Any = slice(None)) -> tuple[Tensor, Tensor]:
        """Words and their log-probabilities, of the candidates at `index`; known words have those that placed them."""
        words, log_p = self.state.read(s_t, estimate)
        if self.known is None:
            return words, log_p
        tokens, known_log_p = (part[index] for part in self.known)
        return torch.where(tokens >= 0, tokens, words), torch.where(tokens >= 0, known_log_p, log_p)

    def denoise(self, s_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self._denoised(s_t, t, c, self.source)

    def denoise_without_source(self, s_t: Tensor, t: Tensor) -> Tensor:
        return self._denoised(s_t, t, self.state.blank(s_t), cast(Source, self.null))

    def drafted(self, tokens: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Tokens [S, L] at a level of noise, and as an estimate: what sampling begins with."""
        state, keys, level = self.state, self.keys[0], level.of(tokens.shape[1])
        tokens = tokens.repeat_interleave(keys.shape[1], 0)
        corrupted = state.corrupt(state.encode(tokens), level, keys.flatten(), self.mask.flatten(0, 1))
        parts = corrupted, state.embed(tokens)
        s, estimate = (x.view(*keys.shape, *x.shape[1:]) for x in parts)
        return s, estimate

    def _denoised(self, s_t: Tensor, t: Tensor, c: Tensor, source: Source) -> Tensor:
        s_t, c = (each(lambda x: x.flatten(0, 1), state) for state in (s_t, c))
        flat = self.network(s_t, t[None], c, self.mask.flatten(0, 1), source)
        return each(lambda x: x.view(*self.mask.shape[:2], *x.shape[1:]), flat)

    def select(self, sentences: Tensor, members: Tensor) -> Rows:
        rows = sentences[:, None]
        keys, mask = self.keys[:, rows, members], self.mask[rows, members]
        known = self.known and Known(*(part[rows, members] for part in self.known))
        source, null = self.source.select(sentences), self.null and self.null.select(sentences)
        return replace(self, source=source, keys=keys, mask=mask, null=null, known=known)


class DiffusionDecoder(Decoder):
    """Candidates are what the sampler makes of noise at each length."""

    def __init__(self, translator: DiffusionTranslator, options: DiffusionOptions):
        """Whatever `options` ask that `translator` cannot do is refused here."""
        o, self.options, self.translator = options, options, translator
        self.candidates = o.length_beam * o.noise_beam
        self.sampler = sampler_for(translator.state, o.sampler)
        words = translator.state.family == "categorical"
        if words:
            check_words(o, translator.state)
        if translator.length is None and (o.length_beam > 1 or o.oracle_length):
            raise UserError(
                "this model predicts no lengths (--length-target canvas), so it has no use for --iter-decode-with-beam "
                "and --oracle-length; drop them, and pass --noise-beam for several candidates"
            )
        if o.draft is not None and translator.schedule.modifier.by_words:
            raise UserError(
                "--draft begins at one level of noise, but each word of this model has its own (--schedule-modifier "
                "spindle); drop it"
            )
        trained = translator.schedule.modifier.factor
        self.conditioning = o.conditioning(self.sampler)
        how = translator.prediction.__name__, trained, o.decode_noise_factor, self.conditioning is not None
        check_prediction(*how)
        self.grid = make_grid(
            translator.schedule.continuous() if words else translator.schedule,
            o.steps,
            o.final_time,
            self.conditioning,
            o.grid,
            o.left_out,
            o.decode_noise_factor,
            1.0 if o.draft is None else o.draft,
        )
        steps = self.sampler.steps(self.grid, o.eta, o.temperature, o.drawing)
        self.steps = joint_steps(steps, translator.state, self.grid) if translator.state.paired else steps
        if words:
            check_draws(o, translator.state, any(step.draws for step in self.steps))
        if o.guidance != 1:
            translator.null_source()
        self.fixed_shapes = o.execution != EAGER
        self.network = Prepared(translator.denoise, o.execution) if self.fixed_shapes else translator.denoise

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        return getattr(self.network, "seconds", 0.0)

    def __call__(self, source: Source, lengths: Lengths, keys: Tensor, on_step: OnStep | None = None) -> Candidates:
        positions = lengths.positions.repeat_interleave(keys.shape[2], 1)
        mask = torch.arange(lengths.width, device=positions.device) < positions[..., None]
        null = None if self.options.guidance == 1 else self.translator.without_source(source)
        rows = Rows(self.translator, self.network, source, self._draw_keys(keys.flatten(1)), mask, null)
        refine = Refinement(self.options.guidance, self.translator.state.clamp if self.options.clamp else None)
        placing = 0
        if lengths.template is not None:
            rows, placing = self._complete(rows, refine, lengths.template), refine.calls
        start = rows.drafted(lengths.draft.tokens, self.grid.level[0]) if lengths.draft else None
        result = self._sample(rows, refine, on_step, start)
        return Candidates.of(self._words(result, rows), lengths, result.calls + placing, result.alive)

    @torch.no_grad()
    def _complete(self, rows: Rows, refine: Refinement, template: Template) -> Rows:
        """With the words of templates at their places, by the estimate of the first step, which is made again with
        them."""
        s, blank = from_noise(rows, self.grid)
        t = self.grid.conditioning_t[0].float().to(s.device)
        return rows.with_template(template, refined(rows, refine, s, t, blank, None)[0])

    def _draw_keys(self, keys: Tensor) -> Tensor:
        """Keys [S, K] of candidates -> [M, S, K], one for each time random numbers may be drawn."""
        draws = self.translator.state.replaces or any(step.draws for step in self.steps)
        count = len(self.steps) if draws else 1
        return noise.fold(keys, torch.arange(count, device=keys.device)[:, None, None])

    def _sample(
        self, rows: Rows, refine: Refinement, on_step: OnStep | None, start: tuple[Tensor, Tensor] | None
    ) -> Sample:
        o = self.options
        rounded = power_of_two if self.fixed_shapes else int
        leaves = o.prune_steps or o.stop_stable
        canvas = self.translator.filled_canvas
        scored = None if canvas is None else canvas.used
        active = EarlyExit(rows.mask, rows.read, o.prune_steps, o.stop_stable, rounded, scored) if leaves else None
        watch = None if on_step is None else History(rows.mask, rows.read, on_step)
        s, estimate = start or from_noise(rows, self.grid)
        s = s if rows.known is None else rows.state.show(s, rows.known.tokens)
        every = leaves or self.fixed_shapes or on_step is not None  # call: a history has its estimates, too
        every = every or self.translator.state.paired  # latents change at every step
        every = every or choice.exporting()  # which calls a batch needs is known only when it is there
        busy = None if every else self.sampler.busy(rows, self.steps, s)
        if busy is not None and self.translator.self_conditioning != "none":
            busy = None  # an estimate that changes nothing conditions the next
        if busy is not None and start:
            busy[0] = True  # words of a draft that stay are scored by the first estimate
        return sample(rows, self.grid, self.steps, refine, active, watch, (s, estimate), busy)

    def _words(self, result: Sample, all_rows: Rows) -> Words:
        """Special symbols may come out anywhere and are dropped; the last position stands for the end, also where a
        word came out there.  Only candidates that are alive are read."""
        rows = (~result.alive).long().argsort(dim=-1, stable=True)[:, : result.remaining]
        here, mask = (torch.arange(rows.shape[0], device=rows.device)[:, None], rows), all_rows.mask
        s, estimate = (each(lambda x: x[here], state) for state in (result.s, result.estimate))
        read, log_p = all_rows.read(s, estimate, here)
        tokens, all_log_p = mask.new_zeros(mask.shape, dtype=read.dtype), log_p.new_zeros(mask.shape)
        tokens[here], all_log_p[here] = read, log_p
        if (canvas := self.translator.filled_canvas) is not None:
            mask = canvas.used(tokens, mask, all_rows.known and all_rows.known.tokens)
        end = all_log_p.gather(-1, mask.sum(-1, keepdim=True) - 1)[..., 0]
        special = torch.isin(tokens, self.translator.special_ids)
        found = Words(tokens, all_log_p, mask & ~special & result.alive[..., None], end)
        return without_repeats(side_by_side(found)) if self.options.drop_repeats else found

    def settings(self) -> dict[str, Any]:
        o, usual = self.options, self.sampler.word_temperature
        drawn = {"word_temperature": first_given(o.word_temperature, usual), "top_k": o.top_k, "top_p": o.top_p}
        return {
            "sampler": o.sampler,
            "steps": o.steps,
            "steps_left_out": o.left_out,
            "grid": o.grid,
            "conditioning_sigma": "{} to {}".format(*self.conditioning) if self.conditioning else "the sample's",
            "final_time": self.grid.t[-1].item(),
            "decode_noise_factor": o.decode_noise_factor,
            "trained_noise_factor": self.translator.schedule.modifier.factor,
            "eta": first_given(o.eta, getattr(self.sampler, "eta", None)),
            "temperature": o.temperature,
            **({} if usual is None else drawn),
            "guidance": o.guidance,
            "clamp": o.clamp,
            "prune_after": ", ".join(map(str, o.prune_steps)) or "never",
            "stop_stable": o.stop_stable or "never",
            "drop_repeats": o.drop_repeats,
            "execution": o.execution,
        }


def first_given(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


class History:
    """Passes each step of the sampling loop on; candidates that have left keep what they had last."""

    def __init__(self, mask: Tensor, read: Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]], on_step: OnStep):
        """Mask [S, K, L] is true at real positions; `read` is as of EarlyExit."""
        self.read, self.on_step, self.sizes = read, on_step, mask.sum(-1)
        self.tokens = torch.zeros_like(mask, dtype=torch.long)
        self.log_p = torch.zeros_like(mask, dtype=torch.float)

    def __call__(self, rows: ActiveRows, s_t: Tensor, estimate: Tensor) -> None:
        stopped, parts = rows.stopped[..., None], (self.tokens.clone(), self.log_p.clone())
        for part, new in zip(parts, self.read(s_t, estimate, rows.index)):
            part[rows.index] = torch.where(stopped, part[rows.index], new)
        self.tokens, self.log_p = parts
        self.on_step(HistoryStep(self.tokens, self.log_p, self.sizes))
