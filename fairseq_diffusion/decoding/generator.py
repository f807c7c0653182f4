"""Decoding a batch: encode once, try lengths and noises as batch rows, sample, round, choose."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.decoding.options import DecodeOptions
from fairseq_diffusion.decoding.selection import SELECTIONS, Candidate
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process import noise
from fairseq_diffusion.sampler.grid import Grid, make_grid
from fairseq_diffusion.sampler.loop import Sample, sample
from fairseq_diffusion.sampler.rules import SAMPLERS
from fairseq_diffusion.translator import Source, Translator

logger = logging.getLogger(__name__)


class DiffusionGenerator:
    """What fairseq calls a sequence generator: batches in, lists of hypotheses out, best first."""

    def __init__(self, options: DecodeOptions, default_sampler: str, dictionary: Any):
        self.options = options
        self.sampler = options.sampler or default_sampler
        self.rule, self.told = SAMPLERS[self.sampler].rule, options.resolve_told(self.sampler)
        self.select = SELECTIONS[options.selection]
        self.eos = dictionary.eos()
        self.silent = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
        self._announced = False

    @torch.no_grad()
    def generate(self, models: list[Any], batch: dict[str, Any], **unsupported: Any) -> list[list[dict[str, Any]]]:
        """Hypotheses of each sentence of a fairseq batch; each is a dict as fairseq's own generators make them."""
        asked = [name for name, value in unsupported.items() if value is not None]
        if asked or len(models) != 1:
            what = " and ".join(asked) or f"an ensemble of {len(models)} models"
            raise UserError(f"diffusion decoding does not support {what}; decode with one checkpoint and without them")
        model = models[0]
        model.eval()  # returns nothing once fairseq has prepared a model for inference
        src_tokens = batch["net_input"]["src_tokens"]
        lengths = self._lengths(model, batch, source := model.encode(src_tokens))
        grid = make_grid(
            model.translator.schedule, self.options.steps, self.options.final_time, self.told, src_tokens.device
        )
        keys = noise.sentence_keys(self.options.seed, src_tokens, src_tokens.ne(model.pad))
        result, trail = self._sample(model.translator, source, keys, lengths, grid)
        self._announce(result.calls)
        return self._finish(model.translator, result, lengths, trail)

    def _lengths(self, model: Any, batch: dict[str, Any], source: Source) -> Tensor:
        """Target lengths to try, [S, length beam], from the model alone unless the oracle was asked for."""
        if self.options.oracle_length:
            if batch.get("target") is None:
                raise UserError("--oracle-length takes lengths from references, and this data has none; drop it")
            return model.with_bos(batch["target"]).ne(model.pad).sum(-1, keepdim=True)
        head = model.translator.length
        logits = head(source.states, source.mask)
        return head.candidates(logits, source.length, self.options.length_beam, self.options.length_beam_kind)

    def _sample(
        self, translator: Translator, source: Source, keys: Tensor, lengths: Tensor, grid: Grid
    ) -> tuple[Sample, list[Tensor]]:
        """Every (length, noise) candidate as a row [S K]; noise depends on seed, sentence, length and number only."""
        numbers = torch.arange(self.options.noise_beam, device=lengths.device)
        keys = noise.fold(keys[:, None, None], lengths[:, :, None], numbers).flatten()
        rows = lengths.repeat_interleave(self.options.noise_beam, 1).flatten()
        mask = torch.arange(int(rows.max()), device=rows.device) < rows[:, None]
        shape, trail = (mask.shape[1], translator.state.dim), []
        result = sample(
            lambda x_t, t, c: translator.denoise(x_t, t, c, mask, source),
            noise.normal(noise.fold(keys, 0), *shape),
            grid,
            self.rule,
            lambda i: noise.normal(noise.fold(keys, i + 1), *shape),
            (lambda i, x_0: trail.append(translator.state.round(x_0)[0])) if self.options.history else None,
        )
        return result, trail

    def _finish(
        self, translator: Translator, result: Sample, lengths: Tensor, trail: list[Tensor]
    ) -> list[list[dict[str, Any]]]:
        """Round, come to the host once, choose, and only then make hypotheses."""
        tokens, log_p = (rows.tolist() for rows in translator.state.round(result.x_0))
        sizes = lengths.repeat_interleave(self.options.noise_beam, 1).flatten().tolist()
        history = [step.cpu() for step in trail]
        per_sentence, finished = lengths.shape[1] * self.options.noise_beam, []
        for first in range(0, len(tokens), per_sentence):
            rows = range(first, first + per_sentence)
            candidates = [
                self._candidate(tokens[r][: sizes[r]], log_p[r][: sizes[r]], (r - first) // self.options.noise_beam)
                for r in rows
            ]
            order = self.select(candidates)[: self.options.nbest]
            finished.append([self._hypothesis(candidates[i], result.calls, first + i, sizes, history) for i in order])
        return finished

    def _candidate(self, tokens: list[int], log_p: list[float], length_rank: int) -> Candidate:
        """Special symbols may come out anywhere and are dropped; the last position stands for the end."""
        spoken = [(token, p) for token, p in zip(tokens, log_p) if token not in self.silent]
        return Candidate([token for token, _ in spoken], [*(p for _, p in spoken), log_p[-1]], length_rank)

    def _hypothesis(
        self, candidate: Candidate, calls: int, row: int, sizes: list[int], history: list[Tensor]
    ) -> dict[str, Any]:
        """fairseq's form: tokens end in </s>; `score` is the mean log-probability; `steps` are network calls."""
        return {
            "tokens": torch.tensor([*candidate.tokens, self.eos]),
            "score": candidate.score,
            "positional_scores": torch.tensor(candidate.log_p),
            "attention": None,
            "alignment": None,
            "steps": calls,
            "history": [{"tokens": step[row, : sizes[row]]} for step in history],
        }

    def _announce(self, calls: int) -> None:
        """Say once what decoding does, with the number of network calls that the loop counted."""
        if self._announced:
            return
        o = self.options
        logger.info(
            f"decoding: {self.sampler}, {o.steps} steps, told sigma "
            f"{'as it is' if self.told is None else '{} to {}'.format(*self.told)}, {calls} network calls, "
            f"{'ORACLE length' if o.oracle_length else f'length beam {o.length_beam}'} x noise beam {o.noise_beam}, "
            f"selection by {o.selection}, seed {o.seed}"
        )
        self._announced = True
