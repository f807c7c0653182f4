"""A decoder in blocks: which layers, what they are shown, and what they may predict."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.network.block_decoder import FUSES, BlockDecoder
from fairseq_diffusion.network.transformer import Size

H, WORDS, MASK = 8, 10, 9
Z = torch.tensor([[0, MASK, 4, MASK, 2], [0, MASK, 2, 1, 1]])
REAL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
SOURCE_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()


def decoder_of(layers=6, blocks=3, fuse="linear", pre_norm=False, dropout=0.0):
    torch.manual_seed(0)
    words = nn.Embedding(WORDS, H)
    decoder = BlockDecoder(words, Size(H, 16, 2, dropout, "gelu", pre_norm), layers, blocks, 20, fuse)
    for part in decoder.fuses:
        for parameter in part.parameters():
            nn.init.normal_(parameter)
    return decoder


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- fuses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUSES)
def test_a_fuse_starts_by_ignoring_what_is_shown(name):
    h, e = draw(2, 5, H), draw(2, 5, H, seed=2)
    assert torch.allclose(FUSES[name](H)(h, e, draw(H)), h, atol=1e-6)


@pytest.mark.parametrize("name", FUSES)
def test_a_fuse_can_learn_from_its_start(name):
    fuse = FUSES[name](H)
    fuse(draw(2, 5, H), draw(2, 5, H, seed=2), draw(H)).pow(2).sum().backward()
    assert all((p.grad != 0).any() for p in fuse.parameters())


def test_what_a_fuse_shows_is_its_equation():
    h, z = draw(2, 5, H), Z
    decoder = decoder_of(fuse="linear")
    e = H**0.5 * decoder.words.weight[z]
    u = decoder.fuses[1].map
    expected = h @ u.weight[:, :H].T + e @ u.weight[:, H:].T + u.bias
    assert torch.allclose(decoder.fuse(3, h, z), expected, atol=1e-5)

    decoder = decoder_of(fuse="gated")
    e = H**0.5 * (decoder.words.weight[z] - decoder.words.weight[MASK])
    assert torch.allclose(decoder.fuse(3, h, z), h + decoder.fuses[1].gate * e, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float, torch.float16, torch.bfloat16])
def test_gated_the_mask_changes_nothing_whatever_the_gate(dtype):
    decoder, h = decoder_of(fuse="gated").to(dtype), draw(2, 5, H).to(dtype)
    changed = (decoder.fuse(2, h, Z) != h).any(-1)
    assert torch.equal(changed, Z != MASK)


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_each_boundary_has_a_fuse_of_its_own(blocks):
    decoder = decoder_of(blocks=blocks)
    assert len(decoder.fuses) == blocks - 1
    found = [decoder.fuse(s, draw(2, 5, H), Z) for s in range(2, blocks + 1)]
    assert not any(torch.allclose(a, b) for i, a in enumerate(found) for b in found[:i])


def test_unknown_fuses_are_explained():
    with pytest.raises(UserError, match="'sum'.*gated, linear"):
        FUSES["sum"]


# -- the vocabulary ---------------------------------------------------------------------------------------------------


def test_the_mask_is_never_predicted():
    """The last row alone is missing; what is predicted and what is read are one table."""
    decoder = decoder_of()
    assert decoder.mask_symbol == MASK
    assert torch.equal(decoder.vocabulary, decoder.words.weight[:MASK])
    decoder.vocabulary.sum().backward()
    assert decoder.words.weight.grad.sum(-1).tolist() == [H] * MASK + [0]


# -- what enters ------------------------------------------------------------------------------------------------------


def test_what_is_copied_stands_only_where_the_mask_does():
    decoder, copied = decoder_of(pre_norm=True), draw(2, 5, H)
    plain, added = decoder.enter(Z, REAL, None), decoder.enter(Z, REAL, copied)
    place = (REAL.long().cumsum(-1) - 1)[REAL]
    assert torch.allclose(plain[REAL], (decoder.words.weight[Z])[REAL] + decoder.positions.weight[place])
    assert torch.allclose(added, plain + torch.where((Z == MASK)[..., None], copied, 0.0), atol=1e-6)
    assert torch.equal(added[Z != MASK], plain[Z != MASK])


def test_a_post_norm_decoder_normalises_what_enters_and_a_pre_norm_one_what_leaves():
    h = draw(2, 5, H)
    before, after = decoder_of(pre_norm=True), decoder_of(pre_norm=False)
    entered = before.enter(Z, REAL, h)
    assert torch.allclose(after.enter(Z, REAL, h), F.layer_norm(entered, (H,)), atol=1e-5)
    assert torch.allclose(before.read(h), F.layer_norm(h, (H,)), atol=1e-5)
    assert torch.equal(after.read(h), h)


def test_dropout_is_before_the_norm_and_in_training_only():
    decoder = decoder_of(pre_norm=True, dropout=0.5)
    dropped = (decoder.train().enter(Z, REAL, None) == 0).float().mean().item()
    assert 0.25 < dropped < 0.75
    assert (decoder.eval().enter(Z, REAL, None) != 0).all()


# -- blocks -----------------------------------------------------------------------------------------------------------


def memory_of(decoder):
    return decoder.memory(draw(2, 4, H, seed=3), SOURCE_MASK)


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_blocks_are_consecutive_layers_each_in_one(blocks):
    """Each layer reads its own keys and values of the source."""
    decoder, ran = decoder_of(blocks=blocks), []
    memory = memory_of(decoder)
    for number, layer in enumerate(decoder.layers):
        layer.register_forward_hook(lambda _, inputs, __, number=number: ran.append((number, inputs[2])))
    h = draw(2, 5, H)
    each = 6 // blocks
    for s in range(1, blocks + 1):
        ran.clear()
        decoder.block(s, h, REAL, memory)
        assert [number for number, _ in ran] == [*range((s - 1) * each, s * each)]
        assert all(source is memory[number] for number, source in ran)


def test_blocks_one_after_another_are_the_layers_in_a_line():
    decoder = decoder_of()
    memory, h = memory_of(decoder), draw(2, 5, H)
    expected = h
    for layer, source in zip(decoder.layers, memory):
        expected = layer(expected, attention_bias(REAL, expected.dtype), source)
    for s in (1, 2, 3):
        h = decoder.block(s, h, REAL, memory)
    assert torch.equal(h, expected)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_neither_padding_nor_the_batch_leaves_a_trace(pre_norm):
    decoder = decoder_of(pre_norm=pre_norm).eval()

    def output(z, mask, states, source_mask):
        memory = decoder.memory(states, source_mask)
        h = decoder.block(1, decoder.enter(z, mask, None), mask, memory)
        return decoder.read(decoder.block(2, decoder.fuse(2, h, z), mask, memory))

    states = draw(2, 4, H, seed=3)
    together = output(Z, REAL, states, SOURCE_MASK)
    wider = output(
        F.pad(Z, (0, 3), value=1), F.pad(REAL, (0, 3)), F.pad(states, (0, 0, 0, 2)), F.pad(SOURCE_MASK, (0, 2))
    )
    assert torch.allclose(wider[:, :5][REAL], together[REAL], atol=1e-5)
    alone = output(Z[1:, :3], REAL[1:, :3], states[1:, :2], SOURCE_MASK[1:, :2])
    assert torch.allclose(alone[0], together[1, :3], atol=1e-5)
    moved = output(Z[1:].roll(2, 1), REAL[1:].roll(2, 1), states[1:], SOURCE_MASK[1:])
    assert torch.allclose(moved[0, 2:], together[1, :3], atol=1e-5)


def test_candidates_share_their_sentences_memory():
    """K rows for each source are what they are with memories of their own."""
    decoder = decoder_of()
    z = torch.cat([Z, Z.flip(1)]).view(2, 2, 5).transpose(0, 1).reshape(4, 5)
    mask, states = torch.ones_like(z).bool(), draw(2, 4, H, seed=3)
    h = decoder.enter(z, mask, None)
    shared = decoder.block(1, h, mask, decoder.memory(states, SOURCE_MASK))
    own = decoder.block(1, h, mask, decoder.memory(*(x.repeat_interleave(2, 0) for x in (states, SOURCE_MASK))))
    assert torch.allclose(shared, own, atol=1e-5)
