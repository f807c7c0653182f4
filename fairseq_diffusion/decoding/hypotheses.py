"""From last estimates to fairseq's hypotheses: all on the device, one journey to the host, and lists for the chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_diffusion.decoding.selection import Candidates
from fairseq_diffusion.process.embedding import EmbeddingState
from fairseq_diffusion.sampler.loop import Sample


@dataclass(frozen=True)
class Spoken:
    """What the candidates that were not pruned say, on the host."""

    candidates: Candidates
    log_p: Tensor  # [S, K, L + 1], of the words and then of the end
    calls: np.ndarray  # [S, K]
    rows: Tensor  # [S, K], which of the batch's candidates each was before pruning
    lengths: Tensor  # [S, K], all positions, special symbols too


def speak(
    state: EmbeddingState, result: Sample, mask: Tensor, silent: Tensor, ranks: Tensor, length_log_p: Tensor
) -> Spoken:
    """Round and score; `mask` [S, K, L] is true at real positions, `ranks` [K] say of which length a candidate is, and
    `length_log_p` [S, K] how likely that length is.

    Special symbols may come out anywhere and are dropped; the last position stands for the end, also where a word came
    out there.  The score is the mean log-probability of the words and the end.
    """
    rows = (~result.alive).long().argsort(dim=-1, stable=True)[:, : int(result.alive[0].sum())]
    here = torch.arange(len(rows), device=rows.device)[:, None], rows
    mask = mask[here]
    tokens, log_p = state.round(result.x_0[here])
    end = log_p.gather(-1, mask.sum(-1, keepdim=True) - 1)
    said = mask & ~torch.isin(tokens, silent)
    sizes = said.sum(-1)
    order = (~said).long().argsort(dim=-1, stable=True)
    place = torch.arange(mask.shape[-1] + 1, device=rows.device)
    words = place[:-1] < sizes[..., None]
    log_p = torch.cat([log_p.gather(-1, order).masked_fill(~words, 0), torch.zeros_like(end)], -1)
    log_p = torch.where(place == sizes[..., None], end, log_p)
    total = log_p.double().sum(-1)
    score, joint = total / (sizes + 1), (total + length_log_p.double()[here]) / (sizes + 1)
    arrays = (tokens.gather(-1, order).masked_fill(~words, -1), sizes, score, ranks[rows], joint)
    return Spoken(
        Candidates(*(array.cpu().numpy() for array in arrays)),
        log_p.cpu(),
        result.calls[here].cpu().numpy(),
        rows.cpu(),
        mask.sum(-1).cpu(),
    )


def hypotheses(
    spoken: Spoken, chosen: Sequence[Sequence[int]], eos: int, trail: Sequence[Tensor] = ()
) -> list[list[dict[str, Any]]]:
    """fairseq's form of the `chosen` candidates of each sentence; `trail` has the tokens [S, K, L] of every step."""
    tokens = torch.from_numpy(spoken.candidates.tokens)
    ended = torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), eos)], -1)
    ended = torch.where(ended == -1, eos, ended)
    history = torch.stack(list(trail)).cpu() if trail else []

    def hypothesis(s: int, k: int) -> dict[str, Any]:
        size, row, length = int(spoken.candidates.sizes[s, k]), int(spoken.rows[s, k]), int(spoken.lengths[s, k])
        return {
            "tokens": ended[s, k, : size + 1],
            "score": float(spoken.candidates.scores[s, k]),
            "positional_scores": spoken.log_p[s, k, : size + 1],
            "attention": None,
            "alignment": None,
            "steps": int(spoken.calls[s, k]),
            "history": [{"tokens": step[s, row, :length]} for step in history],
        }

    return [[hypothesis(s, k) for k in order] for s, order in enumerate(chosen)]
