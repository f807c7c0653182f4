"""A joint model of prefix and next word, in the number that a softmax leaves free, after E-ARM (Wang et al. 2022).

A number added to all logits of a position changes none of its probabilities.  Let phi(x_<k, x_k), the energy, be minus
the logit of x_k behind x_<k, and everything be given a source.  Then

    p(x_<k, x_k) = q(x_<k) exp(-phi(x_<k, x_k)) / Z_k,    S(x_<k) = sum_x exp(-phi(x_<k, x)),    Z_k = E_{x_<k ~ q} S

is a model of both.  q is the model's own distribution of prefixes that have not ended, as it is now, and without
gradient.  At each k

    KL(data || p) = E_data[phi] + log Z_k + constant
                  = E_data[-log p(x_k | x_<k)] + log Z_k - E_data[log S(x_<k)] + constant,

so it is the usual cross-entropy, and beside it the prefixes of the data are to have a larger S than those of the model.
Its gradient is that of the paper, with w(x_<k) = S(x_<k) / Z_k:

    E_data[grad phi] - E_{x_<k ~ q}[w(x_<k) E_{x_k ~ p(. | x_<k)}[grad phi]].

The inner expectation is exact: it is the gradient of log S.  Z_k is the mean over n sampled prefixes of one source, so
that w are self-normalised importance weights, and log Z_k is too small in expectation, by less the larger n is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e30  # log S of a prefix that is none; finite, so that no gradient is nan


class Divergence(NamedTuple):
    """Of the data from the joint model, at each position."""

    kl: Tensor  # [B, L] log Z_k + phi: the divergence up to a constant; 0 elsewhere
    gap: Tensor  # [B, L] log S of the data's prefix minus its mean over the sampled ones; 0 elsewhere
    there: Tensor  # [B, L] where there is a word of the data, and a sampled prefix


def log_sum(logits: Tensor) -> Tensor:
    """log S [...] of logits [..., V], in fp32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).logsumexp(-1)


def divergence(logit: Tensor, log_s: Tensor, sampled_log_s: Tensor, sampled: Tensor, mask: Tensor) -> Divergence:
    """The divergence at the positions of `mask`; none is due where no sampled prefix is that long, and Z_k unknown.

    Args:
        logit: [B, L] of the data's words, -phi.
        log_s: [B, L] log S of the data's prefixes.
        sampled_log_s: [B, n, L] log S of the sampled prefixes.
        sampled: [B, n, L] where these have not ended.
        mask: [B, L] positions of the data.
    """
    there, count = mask & sampled.any(1), sampled.sum(1).clamp(min=1)
    log_z = sampled_log_s.masked_fill(~sampled, NEVER).logsumexp(1) - count.to(sampled_log_s).log()
    mean = sampled_log_s.detach().masked_fill(~sampled, 0).sum(1) / count
    kl, gap = log_z - logit, log_s.detach() - mean
    return Divergence(kl.masked_fill(~there, 0), gap.masked_fill(~there, 0), there)


def last(mask: Tensor, count: int) -> Tensor:
    """Of the positions of mask [B, L] the last `count` of each row; 0: all of them."""
    behind = mask.flip(-1).cumsum(-1).flip(-1)
    return mask & (behind <= count) if count else mask


def not_ended(previous: Tensor, eos: int) -> Tensor:
    """At which positions of previous [..., L], a first symbol and then words, no word before is </s>."""
    return F.pad(previous[..., 1:].eq(eos).cumsum(-1), (1, 0)).eq(0)


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """The words [...] that u [...], uniform in (0, 1), draws from the softmax of logits [..., V]."""
    total = logits.float().softmax(-1).double().cumsum(-1)
    return torch.searchsorted(total, u[..., None] * total[..., -1:])[..., 0]
