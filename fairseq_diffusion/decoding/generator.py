"""What decoding a batch is for any kind of model: encode once, have candidates written, choose among them."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.decoding.buckets import ON_A_CPU, ON_A_GPU, Buckets, Drafts
from fairseq_diffusion.decoding.hypotheses import Spoken, Step, hypotheses
from fairseq_diffusion.decoding.options import CandidateOptions
from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.decoding.selection import Selector
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise

logger = logging.getLogger(__name__)

BOOKS = ("sentences", "model_seconds", "compile_seconds")  # of the report: sums over all batches


class Generator(ABC):
    """What fairseq calls a sequence generator: batches in, lists of hypotheses out, best first."""

    canvases = 1  # of each length that is tried
    fixed_shapes = False
    positions_on_a_cpu = ON_A_CPU
    compile_seconds = 0.0  # so far, in which nothing was decoded

    def __init__(self, options: CandidateOptions, dictionary: Any, teacher: Teacher | None = None):
        """A kind of model refuses here what it cannot do, and not at the first batch."""
        o = self.options = options
        self.teacher = teacher
        self.select = Selector(o.selection, o.mbr_utility, o.mbr_units, dictionary, teacher)
        self.eos = dictionary.eos()
        self.silent = torch.tensor(sorted({dictionary.bos(), dictionary.pad(), dictionary.eos()}))
        self.sentences, self.candidates, self.calls, self.model_seconds = 0, 0, 0, 0.0

    @abstractmethod
    def write(self, model: Any, drafts: Drafts) -> tuple[Spoken, list[Step]]:
        """Candidates of the sentences in `drafts`, and with --retain-iter-history what stood on their canvases at every
        step (else nothing)."""

    @abstractmethod
    def manner(self) -> dict[str, Any]:
        """How this kind of model writes, as the log and the report tell it."""

    @torch.no_grad()
    def generate(self, models: list[Any], batch: dict[str, Any], **unsupported: Any) -> list[list[dict[str, Any]]]:
        """Hypotheses of each sentence of a fairseq batch; each is a dict as fairseq's own generators make them."""
        model = self._model(models, unsupported)
        begun = time.perf_counter() - self.compile_seconds
        src_tokens = batch["net_input"]["src_tokens"]
        source = model.encode(src_tokens)
        keys = noise.sentence_keys(self.options.seed, src_tokens, src_tokens.ne(model.pad))
        drafts = Drafts(source, keys, *self.lengths(model, batch, source))
        candidates = drafts.lengths.shape[1] * self.canvases
        own = self.positions_on_a_cpu if src_tokens.device.type == "cpu" else ON_A_GPU
        buckets = Buckets(drafts, candidates, self.options.candidate_positions or own, self.fixed_shapes)
        spoken, trail = buckets.together([self.write(model, part) for part in buckets])
        spoken = spoken.on_host()
        self._count(spoken, time.perf_counter() - self.compile_seconds - begun)
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

    def lengths(self, model: Any, batch: dict[str, Any], source: Any) -> tuple[Tensor, Tensor]:
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

    def _count(self, spoken: Spoken, seconds: float) -> None:
        """Keep the books of the report; the first batch says what decoding does."""
        self.sentences += spoken.calls.shape[0]
        self.candidates += spoken.calls.numel()
        self.calls += int(spoken.calls.sum())
        self.model_seconds += seconds
        if self.sentences == spoken.calls.shape[0]:
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
            **self.manner(),
            "calls": self.calls / max(1, self.candidates),
            "length_beam": "ORACLE length" if o.oracle_length else o.length_beam,
            "noise_beam": o.noise_beam,
            "length_beam_kind": o.length_beam_kind,
            "selection": o.selection,
            "utility": self._utility(),
            "rescored": self.teacher is not None,
            "oracle_length": o.oracle_length,
            "candidate_positions": o.candidate_positions or "by device",
            "seed": o.seed,
            "sentences": self.sentences,
            "model_seconds": self.model_seconds,
            "compile_seconds": self.compile_seconds,
        }
