"""Prefixes that a left-to-right model makes itself: translations sampled from it, in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.objective.energy import draw


@torch.no_grad()
def sample_prefixes(model: Any, net_input: dict[str, Any], keys: Tensor, length: int, pad: int) -> Tensor:
    """n translations of each sentence as its decoder reads them, [B, n, length], for their keys [B, n]: the symbol that
    the data begin with, then words.

    They are sampled without dropout, as in decoding.  Words behind </s> mean nothing; padding is never drawn.
    """
    training = model.training
    model.eval()
    rows = torch.arange(len(keys), device=keys.device).repeat_interleave(keys.shape[1])
    encoded = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    encoded = model.encoder.reorder_encoder_out(encoded, rows)
    state: dict[str, Any] = {}
    words = net_input["prev_output_tokens"][rows, :1]
    for u in noise.uniform(keys.flatten(), length - 1).unbind(-1):
        logits = model.decoder(words, encoder_out=encoded, incremental_state=state)[0][:, -1]
        logits[:, pad] = -torch.inf
        words = torch.cat([words, draw(logits, u)[:, None]], dim=1)
    model.train(training)
    return words.view(*keys.shape, length)
