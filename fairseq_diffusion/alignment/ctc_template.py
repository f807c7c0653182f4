"""The best alignment of CTC whose words contain a template, once repeats and blanks are dropped.

With y_1 .. y_n the template's words, a position is on one of them, or between y_m and y_(m+1).  There it has any symbol
if there is a gap, and a blank if not.  The path goes through the states

    between y_0 and y_1, y_1, between y_1 and y_2, y_2, ..., y_n, behind y_n          (0..2n)

and from one position to the next it stays, moves on by one state, or by two from a word to a different word.  The first
symbol behind a word is another one, else it would be that word's repeat: so y_m = y_(m+1) stay two words.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.alignment.template import Template


class Symbols(NamedTuple):
    """What positions can have, and its log-probability."""

    tokens: Tensor  # [N, L, 2] the two most probable symbols
    log_p: Tensor  # [N, L, 2]
    blank: Tensor  # [N, L] log-probability of a blank
    words: Tensor  # [N, L, M] those of the template's tokens


class States(NamedTuple):
    """The symbol of each state at each position, [N, L, 2 n + 1], and its log-probability."""

    tokens: Tensor
    log_p: Tensor


def room_for(template: Template) -> Tensor:
    """Positions that the shortest alignment takes, [S]: the words, and a blank between two that are the same."""
    same = template.tokens[:, 1:] == template.tokens[:, :-1]
    real = torch.arange(1, template.tokens.shape[1], device=same.device) < template.size[:, None] - 1
    return template.size - 2 + (same & real).sum(-1)


@torch.no_grad()
def best_with_template(symbols: Symbols, template: Template, size: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Symbols on the best path [N, L], and their log-probabilities, on canvases of `size` [N] positions that have room
    for their templates."""
    stay, enter = (states(symbols, template, blank, entering) for entering in (False, True))
    moves, best = best_moves(stay.log_p, enter.log_p, template)
    last, states_of = size[:, None] - 1, 2 * (template.size[:, None] - 2)
    ended = best.gather(1, last[..., None].expand(-1, -1, best.shape[-1]))[:, 0]
    on_word = (states_of - 1).clamp(min=0)
    state = torch.where(ended.gather(1, on_word) > ended.gather(1, states_of), on_word, states_of)
    found = []
    for j in range(best.shape[1] - 1, -1, -1):
        move = moves[:, j].gather(1, state).masked_fill(j > last, 0)
        found.append([torch.where(move > 0, *(x[:, j].gather(1, state) for x in pair)) for pair in zip(enter, stay)])
        state = state - move
    tokens, log_p = (torch.cat(parts[::-1], 1) for parts in zip(*found))
    return tokens, log_p


def states(symbols: Symbols, template: Template, blank: int, entering: bool) -> States:
    """Of those that the path stays in, or that it is `entering`, from a word whose repeat is none of the symbols."""
    word, log_p = (x[..., None, :].expand(-1, -1, template.tokens.shape[1] - 1, -1) for x in symbols[:2])
    second = entering & (word[..., 0] == template.tokens[:, None, :-1])
    gap = template.gap[:, None, 1:]
    between = torch.where(second, word[..., 1], word[..., 0]), torch.where(second, log_p[..., 1], log_p[..., 0])
    between = torch.where(gap, between[0], blank), torch.where(gap, between[1], symbols.blank[..., None])
    own = template.at(word.shape[1]), symbols.words
    return States(*(torch.stack([a, b[..., 1:]], -1).flatten(2)[..., :-1] for a, b in zip(between, own)))


def best_moves(stay: Tensor, enter: Tensor, template: Template) -> tuple[Tensor, Tensor]:
    """How many states back the best path into each state comes from [N, L, S], and its log-weight [N, L, S]."""
    skip = torch.full_like(stay[:, 0], -torch.inf)
    skip[:, 3::2] = torch.where(template.tokens[:, 2:-1] == template.tokens[:, 1:-2], -torch.inf, 0.0)
    first = torch.arange(stay.shape[-1], device=stay.device) < 2
    best = [stay[:, 0].masked_fill(~first, -torch.inf)]
    moves = [torch.zeros_like(skip, dtype=torch.long)]
    for j in range(1, stay.shape[1]):
        one, two = (F.pad(best[-1], (by, 0), value=-torch.inf)[:, : stay.shape[-1]] for by in (1, 2))
        score, move = torch.stack([best[-1] + stay[:, j], one + enter[:, j], two + enter[:, j] + skip]).max(0)
        best.append(score)
        moves.append(move)
    return torch.stack(moves, 1), torch.stack(best, 1)
