"""Whether a graph translates as the model that it was made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.export.graph import Decoding

SENTENCES = 32  # that are tried, of random words, the first of one
LEAST = 0.9  # share of translations that are the same, but for what is as likely


def agreement(decoding: Decoding, session: Any, exact: bool) -> float:
    """The share of random sentences that a session of the graph translates as the model does; with `exact` too small a
    share is refused."""
    sources = decoding.example(range(1, SENTENCES + 1))
    with torch.no_grad():
        ours = [part.numpy() for part in decoding(sources)]
    theirs = session.run(None, {session.get_inputs()[0].name: sources.numpy()})
    width = max(part[0].shape[1] for part in (ours, theirs))
    one, other = (np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1) for x in (ours[0], theirs[0]))
    share = float((one == other).all(1).mean())
    if exact and share < LEAST:
        raise UserError(
            f"the graph translates {1 - share:.0%} of {SENTENCES} random sentences otherwise than the model; this is a "
            "fault of ours or of this torch: try another version of torch, and please report it"
        )
    return share
