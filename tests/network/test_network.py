"""Padding and candidates leave no trace; shapes and attention are those of torch's own layers."""

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import Attention
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.time_features import TimeFeatures
from fairseq_diffusion.network.transformer import Layer, Size

PAD = 1


@pytest.fixture(params=[False, True], ids=["post_norm", "pre_norm"])
def networks(request):
    torch.manual_seed(0)
    size = Size(hidden=32, inner=64, heads=4, dropout=0.1, pre_norm=request.param)
    return Encoder(20, size, 2, 40).eval(), Denoiser(6, size, 2, 40).eval()


def pad(sentences, left):
    width = max(map(len, sentences)) + 3
    rows = [[PAD] * (width - len(s)) + s if left else s + [PAD] * (width - len(s)) for s in sentences]
    return torch.tensor(rows)


@pytest.mark.parametrize("left", [False, True])
def test_padding_of_the_source_leaves_no_trace(networks, left):
    encoder, denoiser = networks
    sentences = [[4, 5, 6, 7, 8], [9, 10, 11]]
    batch = pad(sentences, left)
    x, c, t = torch.randn(2, 7, 6), torch.randn(2, 7, 6), torch.tensor([0.9, 0.6])
    everything = torch.ones(2, 7).bool()
    states = encoder(batch, batch.ne(PAD))
    together = denoiser(x, c, t, everything, denoiser.memory(states, batch.ne(PAD)))
    for i, sentence in enumerate(sentences):
        alone = torch.tensor([sentence])
        state = encoder(alone, alone.ne(PAD))
        assert torch.allclose(states[i][batch[i].ne(PAD)], state[0], atol=1e-5)
        memory = denoiser.memory(state, alone.ne(PAD))
        one = denoiser(x[i : i + 1], c[i : i + 1], t[i : i + 1], everything[:1], memory)
        assert torch.allclose(one[0], together[i], atol=1e-5)


def test_padding_of_the_target_leaves_no_trace(networks):
    encoder, denoiser = networks
    source = torch.tensor([[4, 5, 6]])
    memory = denoiser.memory(encoder(source, source.ne(PAD)), source.ne(PAD))
    x, c, t = torch.randn(1, 9, 6), torch.randn(1, 9, 6), torch.tensor([0.7])
    mask = torch.arange(9)[None] < 5
    padded = denoiser(x, c, t, mask, memory)
    assert torch.allclose(padded[:, :5], denoiser(x[:, :5], c[:, :5], t, mask[:, :5], memory), atol=1e-5)


def test_candidates_share_their_sentences_memory(networks):
    encoder, denoiser = networks
    source = pad([[4, 5, 6, 7], [8, 9]], left=True)
    memory = denoiser.memory(encoder(source, source.ne(PAD)), source.ne(PAD))
    copied = denoiser.memory(*(x.repeat_interleave(3, 0) for x in (encoder(source, source.ne(PAD)), source.ne(PAD))))
    x, c, t, mask = torch.randn(6, 5, 6), torch.randn(6, 5, 6), torch.rand(6), torch.ones(6, 5).bool()
    assert torch.allclose(denoiser(x, c, t, mask, memory), denoiser(x, c, t, mask, copied), atol=1e-5)


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4, 0.0), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory, mask = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.arange(7)[None] < torch.tensor([[7], [4]])
    expected, _ = theirs(x, memory, memory, key_padding_mask=~mask)
    assert torch.allclose(ours(x, ours.remember(memory, mask)), expected, atol=1e-6)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_layer_is_torchs_decoder_layer(pre_norm, activation):
    torch.manual_seed(0)
    ours = Layer(Size(16, 32, 4, 0.0, activation, pre_norm), cross=True)
    theirs = torch.nn.TransformerDecoderLayer(16, 4, 32, 0.0, activation, batch_first=True, norm_first=pre_norm)
    with torch.no_grad():
        for mine, other in ((ours.self_attention, theirs.self_attn), (ours.cross_attention, theirs.multihead_attn)):
            other.in_proj_weight.copy_(torch.cat([mine.query.weight, mine.key_value.weight]))
            other.out_proj.weight.copy_(mine.out.weight)
        theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    x, source = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    memory = ours.remember(source, torch.ones(2, 7).bool())
    assert torch.allclose(ours(x, torch.ones(2, 5).bool(), memory), theirs(x, source), atol=1e-5)


def test_time_features_tell_near_times_apart_in_half_precision():
    features = TimeFeatures(16).bfloat16()
    t = torch.linspace(1, 0.99, 21)[:20]
    assert features.frequencies.W.dtype == torch.float32
    assert len({tuple(row) for row in features.frequencies(t).tolist()}) == 20
    assert features(t).dtype == torch.bfloat16


class TestLengthHead:
    def head(self, target="difference", grad=False, longest=30):
        torch.manual_seed(0)
        return LengthHead(8, 16, target, grad, longest)

    @pytest.mark.parametrize("target", ["difference", "absolute"])
    def test_the_true_class_leads_to_the_true_length(self, target):
        head = self.head(target)
        source, length = torch.tensor([5, 9, 7]), torch.tensor([4, 12, 7])
        logits = torch.nn.functional.one_hot(head.class_of(source, length), 16) * 50.0
        assert head.candidates(logits, source, 1)[:, 0].tolist() == length.tolist()
        assert head.loss(logits, source, length).max() < 1e-6

    def test_top_k_are_the_likeliest_possible_and_different(self):
        head = self.head()
        logits = torch.arange(16).flip(0)[None].float()  # the shortest class is the likeliest
        assert head.candidates(logits, torch.tensor([7]), 4).tolist() == [[2, 3, 4, 5]]

    def test_offsets_surround_the_likeliest(self):
        logits = torch.nn.functional.one_hot(torch.tensor([10]), 16).float()
        assert self.head().candidates(logits, torch.tensor([7]), 5, "offsets").tolist() == [[9, 10, 8, 11, 7]]

    def test_no_longer_than_the_model_allows(self):
        logits = torch.arange(16)[None].float()
        assert self.head(longest=12).candidates(logits, torch.tensor([9]), 3).tolist() == [[12, 11, 10]]

    def test_a_source_far_longer_than_any_target_still_has_different_lengths(self):
        lengths = self.head(longest=12).candidates(torch.arange(16)[None].float(), torch.tensor([200]), 3)
        assert lengths.tolist() == [[12, 11, 10]]

    def test_too_wide_a_beam_is_explained(self):
        with pytest.raises(UserError, match="--iter-decode-with-beam 8 or less"):
            self.head().candidates(torch.zeros(1, 16), torch.tensor([5]), 9)

    @pytest.mark.parametrize("grad", [False, True])
    def test_gradient_reaches_the_encoder_when_asked(self, grad):
        source = torch.randn(2, 3, 8, requires_grad=True)
        self.head(grad=grad)(source, torch.ones(2, 3).bool()).sum().backward()
        assert (source.grad is not None) == grad
