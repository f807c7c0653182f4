"""Attention seen from outside."""

from __future__ import annotations

from torch import Tensor

from fairseq_diffusion.network.attention import Attention, SelfAttention, joined


def queries_keys_values(attention: Attention) -> dict[str, Tensor]:
    """Weight and bias of all three projections as one, as torch's MultiheadAttention has them."""
    if isinstance(attention, SelfAttention):
        return attention.query_key_value.state_dict()
    return joined(attention.query.state_dict(), attention.key_value.state_dict())
