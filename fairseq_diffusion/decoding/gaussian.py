"""Decoding with a Gaussian model: lengths and noises as batch rows, sample, round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.decoding.buckets import Drafts, power_of_two
from fairseq_diffusion.decoding.execution import EAGER, Prepared
from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.hypotheses import Spoken, Step, speak
from fairseq_diffusion.decoding.options import DecodeOptions
from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.decoding.rows import Rows
from fairseq_diffusion.samplers.early_exit import Leaving, Roster
from fairseq_diffusion.samplers.gaussian import SAMPLERS, steps_of
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.loop import Refinement, Sample, sample
from fairseq_diffusion.translators.diffusion import Translator


class GaussianGenerator(Generator):
    """Candidates are what the sampler makes of noise at each length of the beam."""

    options: DecodeOptions

    def __init__(self, options: DecodeOptions, translator: Translator, dictionary: Any, teacher: Teacher | None = None):
        """Whatever `options` ask that `translator` cannot do is refused here, and not at the first batch."""
        super().__init__(options, dictionary, teacher)
        o, self.schedule, self.canvases = options, translator.schedule, options.noise_beam
        self.sampler = SAMPLERS[o.sampler]
        self.told = o.resolve_told(self.sampler)
        self.grid = make_grid(
            self.schedule, o.steps, o.final_time, self.told, o.grid, o.left_out, o.decode_noise_factor
        )
        self.steps = steps_of(self.sampler, self.grid, o.eta, o.temperature)
        self.draws = len(self.steps) if any(step.noise for step in self.steps) else 1
        if o.guidance != 1:
            translator.learnt_null()
        self.fixed_shapes = o.execution != EAGER
        self.network = Prepared(translator.denoise, o.execution) if self.fixed_shapes else translator.denoise

    @property
    def compile_seconds(self) -> float:
        return getattr(self.network, "seconds", 0.0)

    def write(self, model: Any, drafts: Drafts) -> tuple[Spoken, list[Step]]:
        rows = Rows.of(model.translator, self.network, drafts, self.canvases, self.draws)
        result, trail = self.sample(rows)
        ranks = torch.arange(drafts.lengths.shape[1], device=drafts.lengths.device).repeat_interleave(self.canvases)
        likelihoods = drafts.length_log_p.repeat_interleave(self.canvases, 1)
        silent = self.silent.to(drafts.lengths.device, non_blocking=True)
        return speak(model.translator.state, result, rows.mask, silent, ranks, likelihoods), trail

    def sample(self, rows: Rows) -> tuple[Sample, list[Step]]:
        """The candidates' last estimates, and with --retain-iter-history what they said at every step."""
        o, state = self.options, rows.translator.state
        refine = Refinement(o.guidance, state.clamp if o.clamp else None)
        asked = o.prune_after or o.stop_stable
        rounded = power_of_two if self.fixed_shapes else int
        leaving = Leaving(rows.mask, state.round, o.prune_after, o.stop_stable, rounded) if asked else None
        trail: list[Step] = []

        def watch(roster: Roster, x_0: Tensor) -> None:
            last = trail[-1] if trail else nothing_said(rows.mask)
            trail.append(updated(last, roster, *state.round(x_0)))

        return sample(rows, self.grid, self.steps, refine, leaving, watch if o.history else None), trail

    def manner(self) -> dict[str, Any]:
        o = self.options
        return {
            "sampler": o.sampler,
            "steps": o.steps,
            "steps_left_out": o.left_out,
            "grid": o.grid,
            "told": "as it is" if self.told is None else "{} to {}".format(*self.told),
            "final_time": self.grid.where[-1].item(),
            "decode_noise_factor": o.decode_noise_factor,
            "trained_noise_factor": self.schedule.modifier.factor,
            "eta": self.sampler.eta if o.eta is None else o.eta,
            "temperature": o.temperature,
            "guidance": o.guidance,
            "clamp": o.clamp,
            "prune_after": ", ".join(map(str, o.prune_after)) or "never",
            "stop_stable": o.stop_stable or "never",
            "execution": o.execution,
        }


def nothing_said(mask: Tensor) -> Step:
    """Before the first step, on canvases of which mask [S, K, L] is true at real positions."""
    return Step(torch.zeros_like(mask, dtype=torch.long), torch.zeros_like(mask, dtype=torch.float), mask.sum(-1))


def updated(last: Step, roster: Roster, tokens: Tensor, log_p: Tensor) -> Step:
    """What the rows of the batch say now, both [S', K', L]; whoever has left it goes on saying what it said last."""
    held = roster.held[..., None]
    parts = last.tokens.clone(), last.log_p.clone()
    for part, new in zip(parts, (tokens, log_p)):
        part[roster.here] = torch.where(held, part[roster.here], new)
    return Step(*parts, last.sizes)
