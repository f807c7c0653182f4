"""Attention is torch's, whichever way its products are put together; and its older form can be read."""

import pytest
import torch
from attending import queries_keys_values
from torch import nn

from fairseq_diffusion.network.attention import ALIGNMENT, SelfAttention, SourceAttention, attention_bias, projections

MASK = torch.arange(7) < torch.tensor([[7], [4]])


def torchs(ours):
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    packed = queries_keys_values(ours)
    theirs.load_state_dict(
        {f"in_proj_{kind}": packed[kind] for kind in packed}
        | {f"out_proj.{kind}": value for kind, value in ours.out.state_dict().items()}
    )
    return theirs


def test_attention_to_the_source_is_torchs():
    torch.manual_seed(0)
    ours, x, source = SourceAttention(16, 4, 0.0), torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    expected, _ = torchs(ours)(x, source, source, key_padding_mask=~MASK)
    assert torch.allclose(ours(x, ours.remember(source, attention_bias(MASK, x.dtype))), expected, atol=1e-6)


def test_attention_to_oneself_is_torchs():
    torch.manual_seed(0)
    ours, x = SelfAttention(16, 4, 0.0), torch.randn(2, 7, 16)
    expected, _ = torchs(ours)(x, x, x, key_padding_mask=~MASK)
    assert torch.allclose(ours(x, attention_bias(MASK, x.dtype)), expected, atol=1e-6)


def test_candidates_are_more_queries():
    torch.manual_seed(0)
    ours, x, source = SourceAttention(16, 4, 0.0), torch.randn(6, 5, 16), torch.randn(2, 7, 16)
    shared = ours(x, ours.remember(source, attention_bias(MASK, x.dtype)))
    copies, masks = source.repeat_interleave(3, 0), MASK.repeat_interleave(3, 0)
    assert torch.allclose(shared, ours(x, ours.remember(copies, attention_bias(masks, x.dtype))), atol=1e-6)


def test_one_product_begins_as_the_three_it_stands_for():
    torch.manual_seed(0)
    query, key_value, out = projections(8)
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, 0.0)
    weight, bias = attention.query_key_value.weight, attention.query_key_value.bias
    assert torch.equal(weight, torch.cat([query.weight, key_value.weight])) and not bias.any()
    assert torch.equal(attention.out.weight, out.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_padding_is_out_of_sight(dtype):
    assert attention_bias(MASK, dtype)[:, 0, 0].tolist() == [[0.0] * 7, [0.0] * 4 + [-torch.inf] * 3]
    bias = attention_bias(MASK, dtype)
    assert bias.dtype == dtype and bias.stride() == (ALIGNMENT, ALIGNMENT, ALIGNMENT, 1)
