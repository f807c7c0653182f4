"""Decoding with a model that writes a translation in one pass, or in a few."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Finish, Shown, Written
from fairseq_diffusion.alignment.dag import BEAM, LISTS
from fairseq_diffusion.decoding.buckets import ON_A_CPU, Drafts
from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.hypotheses import Spoken, Step, gather_words
from fairseq_diffusion.decoding.options import CandidateOptions, asked_or_systems, candidate_flags
from fairseq_diffusion.decoding.rescore import Teacher
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.translators.one_pass import GlancingTranslator

# Which searches of a graph read a dial.
DIALS = {
    "lookahead_weight": ("lookahead",),
    "temperature": ("sample",),
    "vertex_tokens": LISTS,
    "beam": (BEAM,),
    "length_penalty": ("viterbi", "joint_viterbi", BEAM),
}


@dataclass(frozen=True)
class GlancingOptions(CandidateOptions):
    """Passes, blocks, and how the canvas is read."""

    back_end: str = "length"
    exit_block: int | None = None
    passes: int = 1
    path_search: str = "lookahead"
    lookahead_weight: float = 1.0
    vertex_tokens: int = 5
    drop_repeats: bool = False
    temperature: float = 1.0
    beam: int = 5
    length_penalty: float = 1.0
    longest: int = 256

    @classmethod
    def from_flags(cls, task: Any, generation: Any, model: Any) -> GlancingOptions:
        """Ours from the task's config, fairseq's own (--beam, --lenpen) from `generation`, and what neither says from
        the model's."""
        back_end = str(model.back_end)
        if task.path_search not in (None, model.path_search) and back_end != "dag":
            raise UserError(f"--path-search searches a graph, but this model has --back-end {back_end}; drop it")
        return cls(
            **candidate_flags(task, generation, model),
            back_end=back_end,
            exit_block=task.exit_block,
            passes=asked_or_systems(task, model, "passes"),
            path_search=str(asked_or_systems(task, model, "path_search")),
            lookahead_weight=task.lookahead_weight,
            vertex_tokens=task.vertex_tokens,
            drop_repeats=task.drop_repeats,
            temperature=task.temperature,
            beam=getattr(generation, "beam", 5),
            length_penalty=getattr(generation, "lenpen", 1.0),
            longest=model.max_target_positions,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passes < 1:
            raise UserError(f"--passes is {self.passes}; a translation takes 1 pass or more")
        if self.vertex_tokens < 1:
            raise UserError(f"--vertex-tokens is {self.vertex_tokens}; a vertex says 1 word or more")
        if self.beam < 1:
            raise UserError(f"--beam is {self.beam}; beam search keeps 1 hypothesis or more")
        if not self.temperature > 0:
            raise UserError(f"--temperature is {self.temperature}; pass a number above 0")
        if self.drop_repeats and self.back_end == "ctc":
            raise UserError("--drop-repeats has no meaning for CTC, which says itself what is repeated; drop it")
        self._check_dials()
        self._check_candidates()

    def _check_dials(self) -> None:
        """What only some searches read was not asked of another; --beam and --lenpen have defaults of fairseq's."""
        search = self.path_search if self.back_end == "dag" else f"of --back-end {self.back_end}"
        for name, default in (("lookahead_weight", 1.0), ("temperature", 1.0), ("vertex_tokens", 5)):
            if getattr(self, name) != default and search not in DIALS[name]:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}, but the search {search} does not read it; "
                    f"drop it, or with a DAG pass --path-search {' or '.join(DIALS[name])}"
                )

    def _check_candidates(self) -> None:
        if self.back_end != "length" and (self.length_beam > 1 or self.oracle_length):
            raise UserError(
                f"a model with --back-end {self.back_end} chooses no length; drop --iter-decode-with-beam and "
                "--oracle-length (a DAG has several candidates by --path-search beam or sample)"
            )
        if self.noise_beam > 1 and not (self.back_end == "dag" and self.path_search == "sample"):
            raise UserError(
                f"--noise-beam is {self.noise_beam}, but this model writes without noise; drop it, or with a DAG pass "
                "--path-search sample"
            )


class GlancingGenerator(Generator):
    """Candidates are lengths to try, or what a graph's search finds."""

    options: GlancingOptions
    positions_on_a_cpu = 2 * ON_A_CPU  # every bucket pays for a pass over the vocabulary, and has no other steps

    def __init__(
        self, options: GlancingOptions, translator: GlancingTranslator, dictionary: Any, teacher: Teacher | None = None
    ):
        if options.exit_block is not None and not 1 <= options.exit_block <= translator.decoder.blocks:
            raise UserError(
                f"--exit-block is {options.exit_block}, but this model's decoder has blocks 1 to "
                f"{translator.decoder.blocks}"
            )
        super().__init__(options, dictionary, teacher)
        self.translator = translator
        o = options
        self.finish = Finish(
            search=o.path_search,
            lookahead_weight=o.lookahead_weight,
            length_penalty=o.length_penalty,
            temperature=o.temperature,
            vertex_tokens=o.vertex_tokens,
            beam=o.beam,
            longest=o.longest,
            drop_repeats=o.drop_repeats,
        )

    def lengths(self, model: Any, batch: dict[str, Any], source: Any) -> tuple[Tensor, Tensor]:
        """Of canvases: those of the length predictor, or in the back end's proportion to the source."""
        back_end = self.translator.back_end
        if back_end.predicts_length:
            return super().lengths(model, batch, source)
        sizes, _ = back_end.sizes(source.mask)
        return sizes, torch.zeros_like(sizes, dtype=torch.float)

    def write(self, model: Any, drafts: Drafts) -> tuple[Spoken, list[Step]]:
        o, lengths = self.options, (drafts.lengths, drafts.width)
        shown: list[Shown] = []
        numbers = torch.arange(o.noise_beam, device=drafts.keys.device)
        finish = replace(self.finish, keys=noise.fold(drafts.keys[:, None], numbers))
        on_show = shown.append if o.history else None
        written = model.translator.write(drafts.source, lengths, finish, o.exit_block, o.passes, on_show)
        return self._spoken(written, drafts.length_log_p), self._trail(shown, written, model.pad)

    def _spoken(self, written: Written, length_log_p: Tensor) -> Spoken:
        calls = torch.full_like(written.said.sum(-1), self.options.passes)
        likely = length_log_p.expand(calls.shape)
        return gather_words(written, likely, self._ranks(calls), calls, length_penalty=self.penalty)

    def _trail(self, shown: list[Shown], written: Written, pad: int) -> list[Step]:
        """What was shown to each block, and how the canvas was read in the end; nothing without a history."""
        if not shown:
            return []
        empty, (sentences, count) = shown[0], written.said.shape[:2]
        sizes = empty.tokens.ne(pad)

        def by_candidate(x: Tensor) -> Tensor:
            return x.view(sentences, -1, *x.shape[1:]).expand(-1, count, *x.shape[1:])

        def step(now: Shown) -> Step:
            said = empty.hidden & (now.tokens != empty.tokens)
            log_p = now.log_p.masked_fill(~said, torch.nan)
            return Step(*map(by_candidate, (now.tokens, log_p, sizes.sum(-1))))

        words = written.log_p.masked_fill(~written.said, torch.nan)  # of a graph, its path's words side by side
        final = written.said if self.options.back_end == "dag" else by_candidate(sizes)
        return [*map(step, shown), Step(written.tokens, words, final.sum(-1))]

    def _ranks(self, like: Tensor) -> Tensor:
        """Which length of the beam each candidate is of, [S, K]; all are of one where none was chosen."""
        rank = torch.arange(like.shape[1], device=like.device)
        return (rank if self.translator.back_end.predicts_length else rank * 0).expand(like.shape)

    @property
    def penalty(self) -> float:
        """The exponent of length in scores: that of the search, where it has one, so that both rank alike."""
        o = self.options
        return o.length_penalty if o.back_end == "dag" and o.path_search in DIALS["length_penalty"] else 1.0

    def manner(self) -> dict[str, Any]:
        o, parts = self.options, self.translator
        facts = {
            "back_end": o.back_end,
            "passes": o.passes,
            "block": f"{o.exit_block or parts.decoder.blocks} of {parts.decoder.blocks}",
            "keep_schedule": parts.glance.keep,
            "drop_repeats": o.drop_repeats,
        }
        if o.back_end != "dag":
            return facts
        return facts | {
            "path_search": o.path_search,
            "upsample": parts.back_end.upsample,
            **{name: getattr(o, name) for name in DIALS if o.path_search in DIALS[name]},
        }
