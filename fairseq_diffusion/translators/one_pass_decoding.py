"""Decoding with a one-pass translator: run the blocks, reveal what is sure, read words off the canvas.  torch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, cast

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Canvas, Guess, Reading, Revealed, Words, side_by_side, without_repeats
from fairseq_diffusion.alignment.glancing import KEEPS, keep_schedule, surest
from fairseq_diffusion.alignment.paths import BEAM, LISTS, READ_BY, SearchOptions
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.registry import option
from fairseq_diffusion.translators.base import Decoder, Options
from fairseq_diffusion.translators.batch import Candidates, Draft, HistoryStep, Lengths, OnStep, Source

if TYPE_CHECKING:
    from fairseq_diffusion.translators.one_pass import OnePassTranslator


@dataclass(frozen=True)
class OnePassOptions(SearchOptions, Options):
    """Passes and blocks, and the search for words."""

    exit_block: int | None = option(
        None, "read the translation off this block of the decoder, counted from 1 (default: the last)"
    )
    keep_schedule: str = option(
        "linear", "share of the translation revealed behind each block", choices=KEEPS, system=True
    )
    passes: int = option(1, "whole passes of the decoder, each with the least certain words hidden again", system=True)

    def __post_init__(self) -> None:
        SearchOptions.__post_init__(self)
        Options.__post_init__(self)
        if self.passes < 1:
            raise UserError(f"--passes is {self.passes}; a translation takes 1 pass or more")


PARTS = 2**20  # of a whole, that a share is rounded down to


class OnePassDecoder(Decoder):
    """Candidates are lengths to try, or what a search finds."""

    positions_on_a_cpu = 2048  # every bucket pays for a pass over the vocabulary, and has no other steps

    def __init__(self, translator: OnePassTranslator, options: OnePassOptions):
        """Whatever `options` ask that `translator` cannot do is refused here."""
        self.translator, self.options = translator, options
        blocks = translator.decoder.blocks
        if options.exit_block is not None and not 1 <= options.exit_block <= blocks:
            raise UserError(f"--exit-block is {options.exit_block}, but this model's decoder has blocks 1 to {blocks}")
        self.last_block = options.exit_block or blocks
        self.kept = keep_schedule(options.keep_schedule, blocks)
        self.search = options.path_search if options.path_search in translator.alignment.searches else None
        found = {BEAM: options.beam, "sample": options.noise_beam}
        self.candidates = options.length_beam * found.get(self.search or "", 1)
        self._check_search()
        self._check_candidates()
        if options.complete:
            self._check_templates()

    def _check_templates(self) -> None:
        o = self.options
        if o.blank_penalty:
            raise UserError("--blank-penalty is not made for the words of a template; drop it, or --complete")
        if self.search in LISTS:
            raise UserError(
                f"--path-search {self.search} looks for several translations, but with --complete there is one, the "
                "best path that contains the template; drop it, or pass --path-search joint_viterbi with a DAG"
            )

    def _check_search(self) -> None:
        """Refuse options that the search does not read."""
        o, name = self.options, self.translator.alignment.name
        if self.search is None and o.path_search not in (self.translator.path_search, SearchOptions.path_search):
            can = " or ".join(self.translator.alignment.searches) or "nothing to search"
            raise UserError(f"--path-search is {o.path_search}, but a model with --alignment {name} has {can}; drop it")
        if o.blank_penalty and (name != "ctc" or self.search):
            raise UserError(
                "--blank-penalty is for CTC whose best symbols are read, without --path-search beam (there --lenpen "
                "makes translations longer); drop it"
            )
        if o.drop_repeats and name == "ctc":
            raise UserError("--drop-repeats has no meaning for CTC, which removes repeats by itself; drop it")
        what = self.search or f"of --alignment {name}"
        for field, searches in READ_BY.items():
            if getattr(o, field) != getattr(SearchOptions, field) and self.search not in searches:
                flag = {"length_penalty": "lenpen"}.get(field, field).replace("_", "-")
                raise UserError(
                    f"--{flag} is {getattr(o, field)}, but the search {what} does not read it; drop it, or pass "
                    f"--path-search {' or '.join(searches)} if this model has it"
                )

    def _check_candidates(self) -> None:
        o, alignment = self.options, self.translator.alignment
        if o.draft is not None and not alignment.predicts_length:
            raise UserError(
                f"--draft begins with words at their places, and a model with --alignment {alignment.name} has none; "
                "drop it"
            )
        if not alignment.predicts_length and (o.length_beam > 1 or o.oracle_length):
            raise UserError(
                f"a model with --alignment {alignment.name} chooses no length; drop --iter-decode-with-beam and "
                "--oracle-length (CTC and DAGs have several candidates by --path-search beam, DAGs by sample, too)"
            )
        if o.noise_beam > 1 and self.search != "sample":
            raise UserError(
                f"--noise-beam is {o.noise_beam}, but this model decodes without noise; drop it, or with a DAG pass "
                "--path-search sample"
            )

    def __call__(self, source: Source, lengths: Lengths, keys: Tensor, on_step: OnStep | None = None) -> Candidates:
        canvas = self.translator.canvas(source, lengths)
        how = Reading(self.options, lengths.positions.shape[1], keys.flatten(1))
        history = History(canvas, len(source.mask)) if on_step else None
        words = self._decode(source, canvas, how, lengths.draft, history.fed.append if history else None)
        if self.options.drop_repeats:
            words = without_repeats(side_by_side(words))
        if on_step and history:
            history.finish(words, on_step, positions=self.search is None)
        calls = torch.full(words.mask.shape[:2], self.options.passes + self.places_first, device=keys.device)
        return Candidates.of(words, lengths, calls, length_penalty=self.length_penalty)

    @property
    def length_penalty(self) -> float:
        """The exponent of length in scores: that of the search, where it has one.  What was revealed before the search
        counts in scores alone."""
        return self.options.length_penalty if self.search in READ_BY["length_penalty"] else 1.0

    def _decode(
        self,
        source: Source,
        canvas: Canvas,
        how: Reading,
        draft: Draft | None,
        on_reveal: Callable[[Revealed], None] | None,
    ) -> Words:
        """Behind all but the last of the passes the least certain words are hidden again (mask-predict, Ghazvininejad
        et al. 2019), before the first one those of a draft; `on_reveal` sees what is fed to each block."""
        alignment, decoder, passes = self.translator.alignment, self.translator.decoder, self.options.passes
        empty = revealed = self._empty(source, canvas)
        hidden = 1.0 if self.options.draft is None else self.options.draft  # share of the words, in the first pass
        if draft is not None:
            guess = Guess(draft.tokens, draft.log_p, canvas.hidden, canvas.tokens.shape[1] - 2)
            revealed = reveal_surest(empty, guess, 1 - hidden)
        for number in range(1, passes + 1):
            h, revealed = self._one_pass(source, canvas, revealed, self.kept, on_reveal)
            if number < passes:
                guess = alignment.guess(h, decoder.vocabulary, canvas, revealed)
                revealed = reveal_surest(empty, guess, 1 - hidden * (passes - number) / passes, up=True)
        return alignment.words(h, decoder.vocabulary, canvas, revealed, how)

    @property
    def places_first(self) -> bool:
        """Whether a pass goes ahead that places templates."""
        return self.options.complete and self.translator.alignment.aligned

    def _empty(self, source: Source, canvas: Canvas) -> Revealed:
        """What stands on the canvas before the first pass: nothing, or the words of its template."""
        empty = Revealed(canvas.tokens, canvas.hidden, torch.zeros_like(canvas.tokens, dtype=torch.float))
        if not self.places_first:
            return empty
        h, _ = self._one_pass(source, canvas, empty, [0.0] * len(self.kept), None)
        return self.translator.alignment.placed(h, self.translator.decoder.vocabulary, canvas, empty)

    def _one_pass(
        self,
        source: Source,
        canvas: Canvas,
        revealed: Revealed,
        kept: Sequence[float],
        on_reveal: Callable[[Revealed], None] | None,
    ) -> tuple[Tensor, Revealed]:
        """The last block's output as the projection sees it, [N, L, h], and what was revealed to it, a share `kept` of
        the words behind each block."""
        model = self.translator
        copied = model.copied(source, canvas)
        # as in training: words of an earlier pass stand before the first block only where glancing began there
        first = model.glance.first == 0 or self.last_block == 1
        if canvas.template is not None and self.options.passes == 1:
            first = first and model.glance.ever  # a template's words, only where the network has ever seen any
        fed = revealed if first else revealed._replace(tokens=canvas.tokens)
        h: Tensor | None = None
        for s in range(1, self.last_block + 1):
            if on_reveal is not None:
                on_reveal(fed)
            h = model.block(s, h, fed.tokens, canvas, source, copied)
            if s < self.last_block:
                revealed, fed = self._reveal(kept[s], h, canvas, revealed)
        return model.decoder.read(cast(Tensor, h)), revealed

    def _reveal(self, share: float, h: Tensor, canvas: Canvas, revealed: Revealed) -> tuple[Revealed, Revealed]:
        """What a boundary adds to what is revealed, for a `share` of the words, and what the next block is fed: that,
        or words for what is hidden."""
        model = self.translator
        if share == 0 and model.feed == "mask":
            return revealed, revealed
        guess = model.alignment.guess(model.decoder.read(h), model.decoder.vocabulary, canvas, revealed)
        revealed = reveal_surest(revealed, guess, share)
        if model.feed == "mask":
            return revealed, revealed
        known = revealed.tokens, revealed.log_p
        tokens, log_p = (torch.where(revealed.hidden, *parts) for parts in zip(guess[:2], known))
        return revealed, revealed._replace(tokens=tokens, log_p=log_p)

    def settings(self) -> dict[str, Any]:
        o, model = self.options, self.translator
        facts = {
            "alignment": model.alignment.name,
            "passes": o.passes,
            "block": f"{self.last_block} of {model.decoder.blocks}",
            "keep_schedule": o.keep_schedule,
            "drop_repeats": o.drop_repeats,
            "blank_penalty": o.blank_penalty,
        }
        if self.search is None:
            return facts
        return facts | {
            "path_search": o.path_search,
            "upsample": model.alignment.upsample,
            **{name: getattr(o, name) for name in READ_BY if self.search in READ_BY[name]},
        }


class History:
    """What is fed to each block, and the words read in the end, as steps of a history."""

    def __init__(self, canvas: Canvas, sentences: int):
        self.canvas, self.sentences = canvas, sentences
        self.fed: list[Revealed] = []

    def finish(self, words: Words, on_step: OnStep, positions: bool) -> None:
        """Pass all steps on.  A graph's words stand side by side; other words at their `positions` of the canvas."""
        count = words.mask.shape[1]
        for revealed in self.fed:
            shown = self.canvas.hidden & (revealed.tokens != self.canvas.tokens)
            log_p = revealed.log_p.masked_fill(~shown, torch.nan)
            on_step(HistoryStep(*(self._each(x, count) for x in (revealed.tokens, log_p, self.canvas.mask.sum(-1)))))
        sizes = self._each(self.canvas.mask.sum(-1), count) if positions else words.mask.sum(-1)
        on_step(HistoryStep(words.tokens, words.log_p.masked_fill(~words.mask, torch.nan), sizes))

    def _each(self, x: Tensor, count: int) -> Tensor:
        """One of [S K, ...] for each of the `count` candidates of a sentence."""
        return x.view(self.sentences, -1, *x.shape[1:]).expand(-1, count, *x.shape[1:])


def reveal_surest(revealed: Revealed, guess: Guess, share: float, up: bool = False) -> Revealed:
    """As much more of the guess as makes a `share` of it revealed, rounded down, or `up`; what is revealed stays."""
    total = guess.predicted.sum(-1).double() * share
    count = ((total - 1e-9).ceil() if up else (total + 1e-9).floor()).long()
    ranked = guess.log_p.masked_fill(~revealed.hidden, torch.inf)
    new = surest(ranked, guess.predicted, count) & revealed.hidden
    most = revealed.most_hidden
    if guess.most_predicted is not None:
        left = guess.most_predicted - guess.most_predicted * int(share * PARTS) // PARTS
        most = min(left, guess.most_predicted if most is None else most)
    tokens = torch.where(new, guess.tokens, revealed.tokens)
    log_p = torch.where(new, guess.log_p, revealed.log_p)
    return Revealed(tokens, revealed.hidden & ~new, log_p, most)
