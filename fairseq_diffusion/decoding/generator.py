"""Decoding a batch: encode once, try lengths and noises as batch rows, sample, round, choose."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.decoding.hypotheses import hypotheses, speak
from fairseq_diffusion.decoding.options import DecodeOptions
from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.decoding.rows import Rows
from fairseq_diffusion.decoding.selection import Selector
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process import noise
from fairseq_diffusion.sampler.grid import make_grid
from fairseq_diffusion.sampler.loop import Refinement, Sample, sample
from fairseq_diffusion.sampler.roster import Leaving, Roster
from fairseq_diffusion.sampler.rules import SAMPLERS, steps_of
from fairseq_diffusion.translator import Source, Translator

logger = logging.getLogger(__name__)

BOOKS = ("sentences", "model_seconds")  # of the report: sums over all batches


class DiffusionGenerator:
    """What fairseq calls a sequence generator: batches in, lists of hypotheses out, best first."""

    def __init__(self, options: DecodeOptions, translator: Translator, dictionary: Any, teacher: Teacher | None = None):
        """Whatever `options` ask that `translator` cannot do is refused here, and not at the first batch."""
        o = self.options = options
        self.teacher, self.schedule = teacher, translator.schedule
        self.sampler = SAMPLERS[o.sampler]
        self.told = o.resolve_told(self.sampler)
        self.grid = make_grid(
            self.schedule, o.steps, o.final_time, self.told, o.grid, o.left_out, o.decode_noise_factor
        )
        self.steps = steps_of(self.sampler, self.grid, o.eta, o.temperature)
        if o.guidance != 1:
            translator.learnt_null()
        self.select = Selector(o.selection, o.mbr_utility, o.mbr_units, dictionary, teacher)
        self.eos = dictionary.eos()
        self.silent = torch.tensor(sorted({dictionary.bos(), dictionary.pad(), dictionary.eos()}))
        self.sentences, self.candidates, self.calls, self.model_seconds = 0, 0, 0, 0.0

    @torch.no_grad()
    def generate(self, models: list[Any], batch: dict[str, Any], **unsupported: Any) -> list[list[dict[str, Any]]]:
        """Hypotheses of each sentence of a fairseq batch; each is a dict as fairseq's own generators make them."""
        model = self._model(models, unsupported)
        begun = time.perf_counter()
        src_tokens = batch["net_input"]["src_tokens"]
        source = model.encode(src_tokens)
        lengths, length_log_p = self._lengths(model, batch, source)
        keys = noise.sentence_keys(self.options.seed, src_tokens, src_tokens.ne(model.pad))
        rows = Rows.of(model.translator, source, keys, lengths, self.options.noise_beam)
        result, trail = self._sample(rows)
        likelihoods = length_log_p.repeat_interleave(self.options.noise_beam, 1)
        silent = self.silent.to(src_tokens.device)
        spoken = speak(model.translator.state, result, rows.mask, silent, self._ranks(rows), likelihoods)
        self._count(result, time.perf_counter() - begun)
        chosen = [order[: self.options.nbest] for order in self.select(spoken.candidates, batch["net_input"])]
        return hypotheses(spoken, chosen, self.eos, trail)

    def _model(self, models: list[Any], unsupported: dict[str, Any]) -> Any:
        """The one model that decodes; fairseq's last is the teacher where there is one."""
        asked = [name for name, value in unsupported.items() if value is not None]
        own = models[:-1] if self.teacher else models
        if asked or len(own) != 1:
            what = " and ".join(asked) or f"an ensemble of {len(own)} models"
            raise UserError(f"diffusion decoding does not support {what}; decode with one checkpoint and without them")
        own[0].eval()  # returns nothing once fairseq has prepared a model for inference
        return own[0]

    def _lengths(self, model: Any, batch: dict[str, Any], source: Source) -> tuple[Tensor, Tensor]:
        """Target lengths to try and their log-probabilities, [S, length beam], from the model alone unless the oracle
        was asked for."""
        if self.options.oracle_length:
            if batch.get("target") is None:
                raise UserError("--oracle-length takes lengths from references, and this data has none; drop it")
            lengths = model.with_bos(batch["target"]).ne(model.pad).sum(-1, keepdim=True)
            return lengths, torch.zeros_like(lengths, dtype=torch.float)
        head = model.translator.length
        logits = head(source.states, source.mask)
        lengths = head.candidates(logits, source.length, self.options.length_beam, self.options.length_beam_kind)
        return lengths, head.log_p(logits, source.length, lengths)

    def _ranks(self, rows: Rows) -> Tensor:
        """Which length of the beam each candidate was decoded at, [K]."""
        return torch.arange(rows.keys.shape[1], device=rows.keys.device) // self.options.noise_beam

    def _sample(self, rows: Rows) -> tuple[Sample, list[Tensor]]:
        """The candidates' last estimates, and with --retain-iter-history the tokens [S, K, L] of every step."""
        o, state = self.options, rows.translator.state
        refine = Refinement(o.guidance, state.clamp if o.clamp else None)
        asked = o.prune_after or o.stop_stable
        leaving = Leaving(rows.mask, state.round, o.prune_after, o.stop_stable) if asked else None
        trail: list[Tensor] = []

        def watch(roster: Roster, x_0: Tensor) -> None:
            seen = trail[-1].clone() if trail else rows.mask.new_zeros(rows.mask.shape, dtype=torch.long)
            seen[roster.here] = torch.where(roster.held[..., None], seen[roster.here], state.round(x_0)[0])
            trail.append(seen)

        return sample(rows, self.grid, self.steps, refine, leaving, watch if o.history else None), trail

    def _count(self, result: Sample, seconds: float) -> None:
        """Keep the books of the report; the first batch says what decoding does."""
        self.sentences += result.calls.shape[0]
        self.candidates += result.calls.numel()
        self.calls += int(result.calls.sum())
        self.model_seconds += seconds
        if self.sentences == result.calls.shape[0]:
            facts = {key: value for key, value in self.describe().items() if key not in BOOKS}
            logger.info("decoding: " + ", ".join(f"{key} {value}" for key, value in facts.items()))

    def _utility(self) -> str:
        if "mbr" not in self.options.selection:
            return "none"
        units = "characters" if self.options.mbr_utility == "chrf" else self.options.mbr_units
        return f"{self.options.mbr_utility} of {units}"

    def describe(self) -> dict[str, Any]:
        """What decoding does and has done, for the log and the report."""
        o = self.options
        return {
            "sampler": o.sampler,
            "steps": o.steps,
            "calls": self.calls / max(1, self.candidates),
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
            "length_beam": "ORACLE length" if o.oracle_length else o.length_beam,
            "noise_beam": o.noise_beam,
            "length_beam_kind": o.length_beam_kind,
            "selection": o.selection,
            "utility": self._utility(),
            "rescored": self.teacher is not None,
            "oracle_length": o.oracle_length,
            "seed": o.seed,
            "sentences": self.sentences,
            "model_seconds": self.model_seconds,
        }
