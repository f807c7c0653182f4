"""Padding and candidates leave no trace; shapes and attention are those of torch's own layers."""

import copy

import pytest
import torch
from attending import queries_keys_values

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.network.denoiser import DENOISERS, Denoiser
from fairseq_diffusion.network.encoder import Encoder, SharedWords, own_words
from fairseq_diffusion.network.latent_maps import LATENT_MAPS
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.time_features import TIME_FEATURES
from fairseq_diffusion.network.transformer import AdaptiveNorm, Layer, Size
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.states.tokens import TokenState

PAD = 1
MASK = torch.ones(1, 3).bool()


def networks_of(pre_norm=False, latent_map="tanh", **parts):
    torch.manual_seed(0)
    size = Size(hidden=32, inner=64, heads=4, dropout=0.1, pre_norm=pre_norm)
    state = EmbeddingState(20, 6, latent_map=latent_map)
    kind = DENOISERS[parts.pop("conditioning", "attention")]
    encoder, denoiser = Encoder(own_words(20, 32), size, 2, 40).eval(), kind(state, size, 2, 40, **parts).eval()
    for name, parameter in denoiser.named_parameters():
        if "change" in name:  # which begins at 0
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder, denoiser


PARTS = {
    "post_norm": {},
    "pre_norm": {"pre_norm": True},
    "linear": {"latent_map": "linear"},
    "sinusoid": {"latent_map": "linear", "time_features": "sinusoid", "pre_norm": True},
    "norm": {"time_conditioning": "norm"},
    "norm, pre_norm": {"time_conditioning": "norm", "pre_norm": True},
    "prefix": {"conditioning": "prefix"},
    "prefix, norm": {"conditioning": "prefix", "time_conditioning": "norm"},
}


@pytest.fixture(params=PARTS)
def networks(request):
    return networks_of(**PARTS[request.param])


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


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_layer_is_torchs_decoder_layer(pre_norm, activation):
    torch.manual_seed(0)
    ours = Layer(Size(16, 32, 4, 0.0, activation, pre_norm), cross=True)
    theirs = torch.nn.TransformerDecoderLayer(16, 4, 32, 0.0, activation, batch_first=True, norm_first=pre_norm)
    with torch.no_grad():
        for mine, other in ((ours.self_attention, theirs.self_attn), (ours.cross_attention, theirs.multihead_attn)):
            other.in_proj_weight.copy_(queries_keys_values(mine)["weight"])
            other.out_proj.weight.copy_(mine.out.weight)
        theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    x, source = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    real, seen = torch.arange(5) < torch.tensor([[5], [3]]), torch.arange(7) < torch.tensor([[4], [7]])
    memory = ours.remember(source, attention_bias(seen, x.dtype))
    expected = theirs(x, source, tgt_key_padding_mask=~real, memory_key_padding_mask=~seen)
    assert torch.allclose(ours(x, attention_bias(real, x.dtype), memory)[real], expected[real], atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in TIME_FEATURES if kind != "none"])
def test_time_features_tell_near_times_apart_in_half_precision(kind):
    features = TIME_FEATURES[kind](16, "silu").bfloat16()
    t = torch.linspace(1, 0.99, 21)[:20]
    assert features.frequencies(t).dtype == torch.float32
    assert len({tuple(row) for row in features.frequencies(t).tolist()}) == 20
    assert features(t).shape == (20, 16) and features(t).dtype == torch.bfloat16


def test_no_time_is_nothing():
    assert torch.equal(TIME_FEATURES["none"](16, "silu")(torch.rand(3)), torch.zeros(3, 16))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_each_norm_follows_the_time_if_asked(pre_norm):
    """Which is then not added to the input: (1 + g) LayerNorm(x) + b, with g and b linear in silu(time)."""
    norm, x, time = AdaptiveNorm(8), torch.randn(2, 5, 8), torch.randn(2, 8)
    plain = torch.nn.functional.layer_norm(x, (8,))
    torch.testing.assert_close(norm(x, time), plain)
    torch.nn.init.normal_(norm.change.weight)
    torch.nn.init.normal_(norm.change.bias)
    g, b = (torch.nn.functional.silu(time) @ norm.change.weight.T + norm.change.bias)[:, None].chunk(2, -1)
    torch.testing.assert_close(norm(x, time), (1 + g) * plain + b)
    _, denoiser = networks_of(pre_norm=pre_norm, time_conditioning="norm")
    x, everything, memory = torch.randn(1, 7, 6), torch.ones(1, 7).bool(), denoiser.memory(torch.randn(1, 3, 32), MASK)
    out = [denoiser(x, x * 0, torch.tensor([t]), everything, memory) for t in (0.3, 0.31, 0.9)]
    assert not torch.allclose(out[0], out[2], atol=1e-3)
    for residual in denoiser.modules():
        if isinstance(residual, AdaptiveNorm):
            torch.nn.init.zeros_(residual.change.weight)
    out = [denoiser(x, x * 0, torch.tensor([t]), everything, memory) for t in (0.3, 0.9)]
    torch.testing.assert_close(*out)  # there is no other way in for the time


@pytest.mark.parametrize("asked", [True, False])
def test_masked_positions_are_attended_to_by_themselves_alone_if_asked(asked):
    """What stands before them is what it would be without them; among themselves they do not see each other."""
    torch.manual_seed(0)
    mask, size = 20, Size(hidden=32, inner=64, heads=4)
    state = TokenState(21, 32, Symbols(0, PAD, 2, mask))
    denoiser = Denoiser(state, size, 2, 40, False, "none", unseen=mask if asked else None).eval()
    memory = denoiser.memory(torch.randn(1, 3, 32), MASK)

    def run(*tokens):
        s_t = torch.tensor([tokens])
        return denoiser(s_t, None, torch.ones(1), s_t.ne(PAD), memory)[0]

    whole, first, fewer = run(0, 5, 6, mask, mask, PAD), run(0, 5, 6), run(0, 5, 6, mask)
    assert torch.allclose(whole[:3], first, atol=1e-5) == asked
    assert torch.allclose(whole[3], fewer[3], atol=1e-5) == asked
    changed = run(0, 5, 7, mask, mask, PAD)
    assert not torch.allclose(whole[3:5], changed[3:5], atol=1e-3)  # words are seen


@pytest.mark.parametrize("hidden", [8, 9])
def test_sinusoids_of_the_time_in_thousands(hidden):
    features = TIME_FEATURES["sinusoid"](hidden, "relu")
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    angle = 1000 * t[:, None] / 10 ** torch.arange(4)  # 10000 ** (i / 4)
    expected = torch.cat([angle.cos(), angle.sin()], -1).float()
    assert torch.allclose(features.frequencies(t), expected, atol=1e-4)
    assert [layer.weight.shape for layer in features.map[::2]] == [(4 * hidden, 8), (hidden, 4 * hidden)]
    assert "frequencies.w" not in features.state_dict()  # nothing was drawn, so nothing is kept
    up, _, down = features.map
    inside = (expected @ up.weight.T + up.bias).clamp(min=0)
    assert torch.allclose(features(t), inside @ down.weight.T + down.bias, atol=1e-3)


@pytest.mark.parametrize("place", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_has_its_own_place(place, monkeypatch):
    """Two passes of a layer differ by the dropout that is on; with the others at 0 nothing else is dropped."""
    torch.manual_seed(0)
    layer = Layer(Size(16, 32, 4, **{place: 0.5})).train()
    places = {
        "dropout": {residual.dropout.p for residual in layer.residuals},
        "attention_dropout": {layer.self_attention.dropout},
        "activation_dropout": {layer.feed_forward.dropout.p},
    }
    assert places == {name: {0.5 if name == place else 0.0} for name in places}
    x, bias = torch.randn(1, 3, 16), attention_bias(torch.ones(1, 3).bool(), torch.float)
    assert not torch.equal(layer(x, bias), layer(x, bias))
    assert torch.equal(layer.eval()(x, bias), layer(x, bias))


def test_the_merge_drops_its_output():
    """Behind its second map, as Difformer's released network does."""
    merge = LATENT_MAPS["linear"].enter(6, Size(8, 16, 2, dropout=0.5), True).merge.train()
    assert (merge(torch.randn(200, 16)) == 0).float().mean() == pytest.approx(0.5, abs=0.1)


def test_linear_entrance_is_its_equation():
    torch.manual_seed(0)
    x_t, c, size = torch.randn(2, 3, 6), torch.randn(2, 3, 6), Size(8, 16, 2)
    plain = LATENT_MAPS["linear"].enter(6, size, False)
    W = plain.project.weight
    assert torch.allclose(plain(x_t, None), x_t @ W.T, atol=1e-6)
    merged = LATENT_MAPS["linear"].enter(6, size, True)
    W, (up, _, down, _) = merged.project.weight, merged.merge
    both = torch.cat([x_t @ W.T, c @ W.T], -1)
    expected = (both @ up.weight.T + up.bias).clamp(min=0) @ down.weight.T + down.bias
    assert torch.allclose(merged(x_t, c), expected, atol=1e-6)
    assert up.weight.shape == (8, 16)
    assert list(LATENT_MAPS["linear"].leave(6, size).state_dict()) == ["weight"]


@pytest.mark.parametrize("latent_map", LATENT_MAPS)
def test_the_self_condition_is_seen(latent_map):
    encoder, denoiser = networks_of(latent_map=latent_map)
    source = torch.tensor([[4, 5, 6]])
    memory = denoiser.memory(encoder(source, source.ne(PAD)), source.ne(PAD))
    x, c, t, mask = torch.randn(1, 5, 6), torch.randn(1, 5, 6), torch.tensor([0.5]), torch.ones(1, 5).bool()
    assert not torch.allclose(denoiser(x, c, t, mask, memory), denoiser(x, 0 * c, t, mask, memory), atol=1e-3)
    assert not torch.allclose(denoiser(x, c, t, mask, memory), denoiser(x, c, t / 2, mask, memory), atol=1e-3)


def test_weights_of_earlier_checkpoints_keep_their_names():
    encoder, denoiser = networks_of()
    assert "embedding.weight" in encoder.state_dict()
    assert {"enter.0.weight", "enter.2.bias", "time.frequencies.W", "time.map.2.weight", "leave.2.weight"} <= set(
        denoiser.state_dict()
    )


class TestSharedWords:
    def words(self):
        torch.manual_seed(0)
        state = EmbeddingState(20, 4, "scaled", 1.0)
        return state, SharedWords(state, 8)

    def test_they_are_the_targets_vectors_projected(self):
        state, words = self.words()
        tokens = torch.tensor([[3, 19, 3]])
        assert torch.allclose(words(tokens), 2 * state.weight[tokens] @ words.project.weight.T, atol=1e-6)

    def test_they_own_the_projection_only(self):
        state, words = self.words()
        both = torch.nn.ModuleDict({"state": state, "words": words})
        assert list(words.state_dict()) == ["project.weight"]
        assert [name for name, _ in both.named_parameters()] == ["state.weight", "words.project.weight"]

    def test_a_copied_model_shares_its_own_table(self):
        both = copy.deepcopy(torch.nn.ModuleDict(dict(zip(("state", "words"), self.words()))))
        with torch.no_grad():
            both["state"].weight.zero_()
        assert both["words"](torch.tensor([[3]])).abs().sum() == 0
        assert both.half()["words"](torch.tensor([[3]])).dtype == torch.float16


class TestLengthHead:
    def head(self, target="difference", grad=False, longest=30, length_map="mlp"):
        torch.manual_seed(0)
        return LengthHead(8, 16, target, grad, longest, length_map)

    def test_linear_map_is_one_matrix_on_the_mean_state(self):
        head = self.head(length_map="linear")
        source, mask = torch.randn(2, 3, 8), torch.tensor([[True, True, False], [True, True, True]])
        mean = torch.stack([source[0, :2].mean(0), source[1].mean(0)])
        assert list(head.state_dict()) == ["map.weight"]
        assert torch.allclose(head(source, mask), mean @ head.map.weight.T, atol=1e-6)

    @pytest.mark.parametrize("target", ["difference", "absolute"])
    def test_the_true_class_leads_to_the_true_length(self, target):
        head = self.head(target)
        source, length = torch.tensor([5, 9, 7]), torch.tensor([4, 12, 7])
        logits = torch.nn.functional.one_hot(head.class_of(source, length), 16) * 50.0
        assert head.candidates(logits, source, 1)[:, 0].tolist() == length.tolist()
        assert head.loss(logits, source, length).max() < 1e-6

    def test_log_probabilities_of_lengths_are_those_the_loss_is_of(self):
        head, source = self.head(), torch.tensor([5, 9])
        logits, lengths = torch.randn(2, 16), torch.tensor([[4, 6, 5], [12, 9, 10]])
        by_loss = [-head.loss(logits, source, lengths[:, k]) for k in range(3)]
        assert torch.allclose(head.log_p(logits, source, lengths), torch.stack(by_loss, 1), atol=1e-6)

    def test_top_k_are_the_likeliest_possible_and_different(self):
        head = self.head()
        logits = torch.arange(16).flip(0)[None].float()  # the shortest class is the likeliest
        assert head.candidates(logits, torch.tensor([7]), 4).tolist() == [[2, 3, 4, 5]]

    def test_offsets_surround_the_likeliest(self):
        logits = torch.nn.functional.one_hot(torch.tensor([10]), 16).float()
        assert self.head().candidates(logits, torch.tensor([7]), 5, "offsets").tolist() == [[9, 8, 10, 7, 11]]

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
