"""What fairseq calls a sequence generator: encode, decode candidates in buckets, choose among them."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_diffusion.alignment.template import Template, check_room
from fairseq_diffusion.decoding.buckets import ON_A_GPU, Buckets
from fairseq_diffusion.decoding.hypotheses import hypotheses
from fairseq_diffusion.decoding.likelihood import LikelihoodScorer
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.decoding.selection import Selector
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.base import Options, Translator
from fairseq_diffusion.translators.batch import Candidates, Draft, HistoryStep, Lengths, Source

logger = logging.getLogger(__name__)

COUNTERS = ("sentences", "model_seconds", "compile_seconds")  # of the report: sums over all batches


class Generator:
    """Batches in, lists of hypotheses out, best first; the same for every translator."""

    def __init__(
        self,
        translator: Translator,
        options: Options,
        selection: SelectionOptions,
        dictionary: Any,
        teacher: Teacher | None = None,
        drafts: Generator | None = None,
    ):
        """
        Args:
            translator: raises a UserError for `options` that it cannot decode with here, not at the first batch.
            options: an instance of the translator's `Options`.
            selection: how to choose among candidates.
            dictionary: fairseq's, of the target.
            teacher: an AR model that rescores.
            drafts: makes the translations to begin with, where `options` ask for them.
        """
        self.options, self.selection, self.teacher, self.drafts = options, selection, teacher, drafts
        self.decoder, self.template_room = translator.decoding(options), translator.template_room
        likelihoods = None
        if "likelihood" in selection.chain:
            likelihoods = LikelihoodScorer(translator, dictionary, selection.likelihood_samples, seed=selection.seed)
        utility = selection.mbr_utility, selection.mbr_units
        self.select = Selector(selection.chain, *utility, dictionary, teacher, likelihoods)
        self.bos, self.pad, self.eos = dictionary.bos(), dictionary.pad(), dictionary.eos()
        self.sentences, self.candidates, self.calls, self.model_seconds = 0, 0, 0, 0.0

    @torch.no_grad()
    def generate(
        self, models: list[Any], batch: dict[str, Any], constraints: Tensor | None = None, **unsupported: Any
    ) -> list[list[dict[str, Any]]]:
        """Hypotheses of each sentence of a fairseq batch; each is a dict as fairseq's own generators make them.  With
        --complete `constraints` [S, R] are rows of templates."""
        translator = self._translator(models, unsupported)
        begun = time.perf_counter() - self.decoder.compile_seconds
        tokens = batch["net_input"]["src_tokens"]
        with_bos = F.pad(tokens, (1, 0), value=self.bos)
        source = translator.encode(with_bos, with_bos.ne(self.pad))
        template = None if constraints is None else Template.of(constraints, self.bos)
        lengths = self._lengths(translator, source, models, batch, template)
        keys = self.keys(tokens, lengths)
        usual = self.decoder.positions_on_a_cpu if tokens.device.type == "cpu" else ON_A_GPU
        limit = self.selection.candidate_positions or usual
        buckets = Buckets(source, lengths, keys, limit, self.decoder.fixed_shapes)
        candidates, history = buckets.together([self._decode(*part) for part in buckets])
        candidates = candidates.each(Tensor.cpu)
        check_scores(candidates)
        self._count(candidates, time.perf_counter() - self.decoder.compile_seconds - begun)
        chosen = [order[: self.selection.nbest] for order in self.select(candidates, batch["net_input"])]
        return hypotheses(candidates, chosen, self.eos, history)

    def check_template(self, row: Tensor, source: Tensor) -> None:
        """Refuse the row [R] of a template that has no room in translations of a source [T]."""
        mask = torch.ones(1, 1 + len(source), dtype=torch.bool)  # with <s>
        check_room(*self.template_room(Template.of(row[None], self.bos), mask, self.options.length_beam))

    def _decode(self, source: Source, lengths: Lengths, keys: Tensor) -> tuple[Candidates, list[HistoryStep]]:
        """A bucket's candidates, and with --retain-iter-history what each step had (else nothing)."""
        steps: list[HistoryStep] = []
        return self.decoder(source, lengths, keys, steps.append if self.selection.history else None), steps

    def _translator(self, models: list[Any], unsupported: dict[str, Any]) -> Translator:
        """The one that decodes; fairseq's last model is the teacher where there is one."""
        asked = [name for name, value in unsupported.items() if value is not None]
        own = models[:-1] if self.teacher else models
        if asked or len(own) != 1 + (self.drafts is not None):
            what = " and ".join(asked) or f"an ensemble of {len(own)} models"
            raise UserError(f"diffusion decoding does not support {what}; decode with one checkpoint and without them")
        own[0].eval()  # returns nothing once fairseq has prepared a model for inference
        return own[0].translator

    def _lengths(
        self,
        translator: Translator,
        source: Source,
        models: list[Any],
        batch: dict[str, Any],
        template: Template | None,
    ) -> Lengths:
        """Target lengths to try: from the model alone, a draft's, or the references' with --oracle-length."""
        o, target = self.options, batch.get("target")
        if self.drafts:
            return self._drafted(translator, source, models[1], batch)
        if not o.oracle_length:
            return translator.lengths(source, o.length_beam, o.length_beam_kind, template)
        if target is None:
            raise UserError("--oracle-length takes lengths from references, and this data has none; drop it")
        positions = translator.room(source.length, 1 + target.ne(self.pad).sum(-1))[:, None]
        return Lengths(positions, torch.zeros_like(positions, dtype=torch.float), width=0)

    def _drafted(self, translator: Translator, source: Source, model: Any, batch: dict[str, Any]) -> Lengths:
        """The second model's translations, which decoding begins with."""
        assert self.drafts is not None
        best = [found[0] for found in self.drafts.generate([model], batch)]
        device = batch["net_input"]["src_tokens"].device
        tokens, log_p = (
            F.pad(pad_sequence([each[name] for each in best], True, fill).to(device), (1, 0), value=first)
            for name, fill, first in (("tokens", self.pad, self.bos), ("positional_scores", 0.0, 0.0))
        )
        if tokens.shape[1] > translator.longest:
            raise UserError(
                f"a draft has {tokens.shape[1]} tokens with both ends, and the model that begins with it takes up to "
                f"{translator.longest}; train one with a larger --max-target-positions, or drop --draft"
            )
        tokens, mask = translator.filled(source, tokens, tokens.ne(self.pad))
        log_p = F.pad(log_p, (0, tokens.shape[1] - log_p.shape[1]))
        positions = mask.sum(-1, keepdim=True)
        known = torch.zeros_like(positions, dtype=torch.float)
        return Lengths(positions, known, tokens.shape[1], draft=Draft(tokens, log_p))

    def keys(self, tokens: Tensor, lengths: Lengths) -> Tensor:
        """Random keys [S, l, n] of the n candidates at each length, from the sentence's own tokens, never from its
        index in the batch."""
        keys = noise.sentence_keys(self.selection.seed, tokens, tokens.ne(self.pad))[:, None, None]
        numbers = torch.arange(self.options.noise_beam, device=keys.device)
        lengths_too = [lengths.positions[:, :, None]] if lengths.predicted else []
        return noise.fold(keys, *lengths_too, numbers)

    def _count(self, candidates: Candidates, seconds: float) -> None:
        """Count for the report; the first batch logs the settings."""
        self.sentences += candidates.calls.shape[0]
        self.candidates += candidates.calls.numel()
        self.calls += int(candidates.calls.sum())
        self.model_seconds += seconds
        if self.sentences == candidates.calls.shape[0]:
            facts = {key: value for key, value in self.describe().items() if key not in COUNTERS}
            logger.info("decoding: " + ", ".join(f"{key} {value}" for key, value in facts.items()))

    def _utility(self) -> str:
        if "mbr" not in self.selection.chain:
            return "none"
        units = "characters" if self.selection.mbr_utility == "chrf" else self.selection.mbr_units
        return f"{self.selection.mbr_utility} of {units}"

    @property
    def calls_each(self) -> float:
        """Network calls a candidate."""
        return self.calls / max(1, self.candidates)

    def _draft_settings(self) -> Any:
        drafts = self.drafts
        if drafts is None:
            return "none"
        return {"begins_at": self.options.draft, "calls": drafts.calls_each, **drafts.decoder.settings()}

    def describe(self) -> dict[str, Any]:
        """What decoding does and has done, for the log and the report."""
        o, selection = self.options, self.selection
        return {
            **self.decoder.settings(),
            "calls": self.calls_each,
            "length_beam": "ORACLE length" if o.oracle_length else o.length_beam,
            "noise_beam": o.noise_beam,
            "length_beam_kind": o.length_beam_kind,
            "selection": selection.chain,
            "utility": self._utility(),
            "rescored": self.teacher is not None,
            **({"rescored_by": selection.rescore_by} if self.teacher else {}),
            "oracle_length": o.oracle_length,
            "draft": self._draft_settings(),
            "candidate_positions": selection.candidate_positions or "by device",
            "seed": selection.seed,
            "sentences": self.sentences,
            "model_seconds": self.model_seconds,
            "compile_seconds": self.decoder.compile_seconds,
        }


def check_scores(candidates: Candidates) -> None:
    """Of candidates that were not dropped; weights are finite when a model is loaded, but fp16 may overflow."""
    if (candidates.scores.isnan() & candidates.alive).any():
        raise UserError(
            "the model gives a translation a score that is no number (nan); if it decodes with --fp16, pass --bf16 or "
            "neither, else take an earlier checkpoint"
        )
