"""Connectionist temporal classification: a canvas longer than the translation, whose neighbouring repeats and then
blanks are dropped (Graves et al. 2006; Libovicky and Helcl 2018).

<s>, which no translation contains, is the blank; so a target's first column is the blank's.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fairseq_diffusion.alignment import ctc_template
from fairseq_diffusion.alignment.base import (
    ALIGNMENTS,
    Alignment,
    Canvas,
    Guess,
    Reading,
    Revealed,
    Scored,
    Symbols,
    Words,
    by_sentence,
    fitting,
    word_scores,
)
from fairseq_diffusion.alignment.beam import beam_search
from fairseq_diffusion.alignment.ctc_beam import Positions
from fairseq_diffusion.alignment.paths import BEAM, SearchOptions
from fairseq_diffusion.alignment.template import Template
from fairseq_diffusion.kernels.ctc import collapse, ctc_best_path, ctc_log_likelihood
from fairseq_diffusion.kernels.rounding import top_rows

REVEALS = ("positions", "words")


@ALIGNMENTS.register("ctc")
class CTCAlignment(Alignment):
    """All alignments summed up; a revealed word forces them to have it there.

    With `reveal` "positions", words and blanks are revealed alike; with "words", words alone.
    """

    name = "ctc"
    searches = (BEAM,)
    has_ends = False
    never_predicted = ("pad", "eos")

    def __init__(self, symbols: Symbols, upsample: float, longest: int = 256, reveal: str = "positions"):
        super().__init__(symbols, upsample, longest)
        self.words_only = reveal == "words"

    def may_show(self, index: Tensor) -> Tensor:
        return index >= int(self.words_only)

    def guess(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed) -> Guess:
        guess = super().guess(h, words, canvas, revealed)
        if canvas.template is not None:
            guess = self._with_template(guess, h, words, canvas, revealed)
        if not self.words_only:
            return guess
        return guess._replace(predicted=guess.predicted & (guess.tokens != self.symbols.bos), most_predicted=None)

    def _with_template(self, guess: Guess, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed) -> Guess:
        """The most probable symbols that collapse to words with the template among them; a mere gap changes nothing."""
        template, blank, hidden = cast(Template, canvas.template), self.symbols.bos, revealed.hidden
        tokens, log_p, blank_log_p = self._certain(*self._likeliest(h, words, 2), revealed)
        shown = torch.where(template.at(h.shape[1]) == revealed.tokens[..., None], 0.0, -torch.inf)
        own = torch.where(hidden[..., None], word_scores(h, words, template.at(h.shape[1])).log_p, shown)
        symbols = ctc_template.Symbols(tokens, log_p, blank_log_p, own)
        found = ctc_template.best_with_template(symbols, template, canvas.mask.sum(-1), blank)
        changed = hidden & ~template.open[:, None]
        tokens, log_p = (torch.where(changed, *pair) for pair in zip(found, guess[:2]))
        return guess._replace(tokens=tokens, log_p=log_p)

    def room_for(self, template: Template) -> Tensor:
        return ctc_template.room_for(template)

    def given(self, canvas: Canvas, mask: Tensor) -> Tensor:
        return torch.full_like(canvas.tokens, -1)

    def score(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, index: Tensor) -> Scored:
        scores = word_scores(h, words, target[:, None].expand(-1, h.shape[1], -1))
        shown = target.gather(1, index.clamp(min=0))
        forced = torch.where(target[:, None] == shown[..., None], 0.0, -torch.inf)
        emission = torch.where((index >= 0)[..., None], forced, scores.log_p)[..., :-1]
        length = (mask.sum(-1) - 2).clamp(min=0)
        graph = target[:, 1:-1], length, canvas.mask.sum(-1)
        log_p, impossible = ctc_log_likelihood(emission, *graph)
        return Scored(
            scores.best,
            -log_p,
            length.clamp(min=1),
            impossible,
            lambda: fitting(*ctc_log_likelihood(emission.double(), *graph, form="log")),
            lambda: ctc_best_path(emission.detach(), *graph),
        )

    def words(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed, how: Reading) -> Words:
        """The most probable symbol at each position, collapsed, unless a beam search is asked for; a word's
        log-probability includes that of what follows it, up to the next."""
        if how.options.path_search == BEAM:
            return self._beam(h, words, canvas, revealed, how.options)
        if how.options.blank_penalty:
            tokens, log_p = self._with_fewer_blanks(h, words, revealed, how.options.blank_penalty)
        else:
            tokens, log_p, *_ = self.guess(h, words, canvas, revealed)
        mask = collapse(tokens, canvas.mask, self.symbols.bos)
        word = mask.long().cumsum(-1)
        sums = log_p.new_zeros(log_p.shape[0], log_p.shape[1] + 1)
        sums = sums.scatter_add(1, word, log_p.masked_fill(~canvas.mask, 0))
        return by_sentence(tokens, sums.gather(1, word), mask, sums[:, 0], how.candidates)

    def _with_fewer_blanks(self, h: Tensor, words: Tensor, revealed: Revealed, penalty: float) -> tuple[Tensor, Tensor]:
        """The best symbol of each position, and its log-probability, which the penalty does not change."""
        tokens, log_p, blank_log_p = self._likeliest(h, words, 2)
        second = (tokens[..., :1] == self.symbols.bos).long()
        word, word_log_p = (part.gather(-1, second)[..., 0] for part in (tokens, log_p))
        blank = blank_log_p - penalty > word_log_p
        tokens = torch.where(revealed.hidden, torch.where(blank, self.symbols.bos, word), revealed.tokens)
        return tokens, torch.where(revealed.hidden, torch.where(blank, blank_log_p, word_log_p), revealed.log_p)

    def _beam(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed, options: SearchOptions) -> Words:
        """What is revealed is certain where it is; its log-probability goes to the end, too."""
        blank, hidden = self.symbols.bos, revealed.hidden
        listed = self._certain(*self._likeliest(h, words, options.vertex_tokens), revealed)
        places = Positions.of(*listed, canvas.mask.sum(-1), blank)
        found = Words.of(beam_search(places, options.beam, self.longest, options.length_penalty))
        shown = revealed.log_p.masked_fill(hidden, 0).sum(-1, keepdim=True)
        return found._replace(end_log_p=found.end_log_p + shown)

    def _certain(
        self, tokens: Tensor, log_p: Tensor, blank_log_p: Tensor, revealed: Revealed
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest symbols with those alone that are revealed, where they are."""
        hidden = revealed.hidden
        blank_log_p = torch.where(
            hidden, blank_log_p, torch.where(revealed.tokens == self.symbols.bos, 0.0, -torch.inf)
        )
        certain = torch.where(torch.arange(log_p.shape[-1], device=log_p.device) == 0, 0.0, -torch.inf)
        tokens = torch.where(hidden[..., None], tokens, revealed.tokens[..., None])
        return tokens, torch.where(hidden[..., None], log_p, certain), blank_log_p

    def _likeliest(self, h: Tensor, words: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The `count` most probable symbols of each position [N, L, count], their log-probabilities, and a blank's."""
        listed = top_rows(h.flatten(0, 1), words, count, self.banned)
        tokens, log_p = (part.view(*h.shape[:2], -1) for part in listed)
        apart = (h.float() * (words[self.symbols.bos].float() - words[tokens[..., 0]].float())).sum(-1)
        return tokens, log_p, log_p[..., 0] + apart
