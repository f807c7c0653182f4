"""From what candidates say to fairseq's hypotheses: all on their device, one journey to the host, and lists for the
chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Written
from fairseq_diffusion.decoding.selection import Candidates
from fairseq_diffusion.samplers.loop import Sample
from fairseq_diffusion.states.embedding import EmbeddingState


@dataclass(frozen=True)
class Spoken:
    """What the candidates that are left say."""

    tokens: Tensor  # [S, K, L] without special symbols; -1 behind the end
    sizes: Tensor  # [S, K]
    scores: Tensor  # [S, K] the mean log-probability of words and end
    ranks: Tensor  # [S, K] which length of the beam each is of
    joint: Tensor  # [S, K] the same mean with the log-probability of the length in the sum
    log_p: Tensor  # [S, K, L + 1], of the words and then of the end
    calls: Tensor  # [S, K'], network calls of each of the batch's candidates, also of those pruned
    rows: Tensor  # [S, K], which of these each is

    def on_host(self) -> Spoken:
        return Spoken(*(part.cpu() for part in parts_of(self)))

    @cached_property
    def candidates(self) -> Candidates:
        """What is chosen among, once all is on the host."""
        return Candidates(*(part.numpy() for part in parts_of(self)[:5]))


def parts_of(spoken: Spoken) -> list[Tensor]:
    """The fields in their order."""
    return [getattr(spoken, field.name) for field in fields(spoken)]


class Step(NamedTuple):
    """What stood on every candidate's canvas at one step; --retain-iter-history keeps them all."""

    tokens: Tensor  # [S, K', L], special symbols too
    log_p: Tensor  # [S, K', L], nan where nothing was said
    sizes: Tensor  # [S, K'], positions of each canvas


def gather_words(
    written: Written,
    length_log_p: Tensor,
    ranks: Tensor,
    calls: Tensor,
    rows: Tensor | None = None,
    length_penalty: float = 1.0,
) -> Spoken:
    """What is said, moved together, and scored by the mean log-probability of the words and the end; or by their sum
    over another power of their number, the `length_penalty`.

    `length_log_p` [S, K] says how likely a candidate's length is and `ranks` [S, K] of which length of the beam it is,
    `calls` [S, K'] how often the network was called for each of the batch's candidates, and `rows` [S, K] which of
    these are left (None: all).
    """
    if rows is None:
        rows = torch.arange(calls.shape[1], device=calls.device).expand(calls.shape)
    sizes, end = written.said.sum(-1), written.end_log_p[..., None]
    order = (~written.said).long().argsort(dim=-1, stable=True)
    place = torch.arange(written.said.shape[-1] + 1, device=rows.device)
    words = place[:-1] < sizes[..., None]
    log_p = written.log_p.gather(-1, order).masked_fill(~words, 0)
    log_p = torch.where(place == sizes[..., None], end, torch.cat([log_p, torch.zeros_like(end)], -1))
    total = log_p.double().sum(-1)
    weight = (sizes + 1.0) ** length_penalty
    score, joint = total / weight, (total + length_log_p.double()) / weight
    tokens = written.tokens.gather(-1, order).masked_fill(~words, -1)
    return Spoken(tokens, sizes, score, ranks, joint, log_p, calls, rows)


def speak(
    state: EmbeddingState, result: Sample, mask: Tensor, silent: Tensor, ranks: Tensor, length_log_p: Tensor
) -> Spoken:
    """Round a Gaussian model's last estimates; `mask` [S, K, L] is true at real positions, `ranks` [K] say of which
    length a candidate is, and `length_log_p` [S, K] how likely that length is.

    Special symbols may come out anywhere and are dropped; the last position stands for the end, also where a word came
    out there.
    """
    rows = (~result.alive).long().argsort(dim=-1, stable=True)[:, : result.left]
    here = torch.arange(len(rows), device=rows.device)[:, None], rows
    mask = mask[here]
    tokens, log_p = state.round(result.x_0[here])
    sizes = mask.sum(-1)
    end = log_p.gather(-1, sizes[..., None] - 1)[..., 0]
    written = Written(tokens, log_p, mask & ~torch.isin(tokens, silent), end)
    return gather_words(written, length_log_p[here], ranks[rows], result.calls, rows)


def hypotheses(
    spoken: Spoken, chosen: Sequence[Sequence[int]], eos: int, trail: Sequence[Step] = ()
) -> list[list[dict[str, Any]]]:
    """fairseq's form of each sentence's `chosen` candidates, of what is `spoken` on the host; `trail` has all steps."""
    said = spoken.candidates
    tokens = torch.from_numpy(said.tokens)
    ended = torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), eos)], -1)
    ended = torch.where(ended == -1, eos, ended)
    history = [Step(*(part.cpu() for part in step)) for step in trail]

    def hypothesis(s: int, k: int) -> dict[str, Any]:
        size, row = int(said.sizes[s, k]), int(spoken.rows[s, k])
        return {
            "tokens": ended[s, k, : size + 1],
            "score": float(said.scores[s, k]),
            "positional_scores": spoken.log_p[s, k, : size + 1],
            "attention": None,
            "alignment": None,
            "steps": int(spoken.calls[s, row]),
            "history": [canvas(step, s, row) for step in history],
        }

    return [[hypothesis(s, k) for k in order] for s, order in enumerate(chosen)]


def canvas(step: Step, s: int, row: int) -> dict[str, Tensor]:
    """An entry of one candidate's history, under fairseq's names."""
    size = int(step.sizes[s, row])
    return {"tokens": step.tokens[s, row, :size], "positional_scores": step.log_p[s, row, :size]}


def readable(history: Sequence[dict[str, Any]], dictionary: Any) -> list[dict[str, list[Any]]]:
    """A hypothesis' history as JSON has it: symbols, and how probable each was, null where nothing was said (and for
    fairseq's own iterative models, which keep tokens alone)."""
    return [
        {
            "tokens": [dictionary[token] for token in step["tokens"].tolist()],
            "p": probabilities(step["positional_scores"], len(step["tokens"])),
        }
        for step in history
    ]


def probabilities(log_p: Tensor | None, size: int) -> list[float | None]:
    if log_p is None:
        return [None] * size
    return [None if math.isnan(p) else round(p, 4) for p in log_p.float().exp().tolist()]
