"""A translator that writes in one pass: what its special cases are, what is graded, and what is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from blocks import BACK_ENDS, BOS, EOS, KEYS, MASK, PAD, SOURCE, TARGET, build, losses, total
from torch import Tensor

from fairseq_diffusion.alignment.base import Finish, Reading
from fairseq_diffusion.alignment.glancing import Boundary, Glance
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.translators.one_pass import GlancingTranslator

WORDS = TARGET.ne(PAD) & TARGET.ne(EOS)
WORDS[:, 0] = False  # neither begin nor end


# -- the ancestors, written out in a straight line --------------------------------------------------------------------


def said_in_a_pass(model: GlancingTranslator, z: Tensor, source: Tensor = SOURCE) -> list[Tensor]:
    """Log-probabilities [B, L, V] behind each layer, where each reads the words that the one before it says."""
    decoder, encoded = model.decoder, model.encode(source, source.ne(PAD))
    mask, hidden = TARGET.ne(PAD), z == MASK
    x = decoder.words(z)
    copied = model.copy(model.encoder.embedding(source), source.ne(PAD), mask)
    h = decoder.norm(decoder.dropout(x if copied is None else x + copied * hidden[..., None]) + decoder.positions(mask))
    said: list[Tensor] = []
    for number, layer in enumerate(decoder.layers):
        if decoder.blocks > 1 and number:
            fed = torch.where(hidden, said[-1].argmax(-1), z)
            e = 16**0.5 * decoder.words(fed)
            fuse = decoder.fuses[number - 1].map
            h = torch.cat([h, e], -1) @ fuse.weight.T + fuse.bias
        h = layer(h, attention_bias(mask, h.dtype), encoded.memory[number])
        said.append((h @ decoder.words.weight[:MASK].T).log_softmax(-1))
    return said


def canvas(shown: Tensor) -> Tensor:
    """z [B, L]: the target where `shown` [B, L] or at the ends, the mask elsewhere."""
    return torch.where(WORDS & ~shown, MASK, TARGET)


def mean_over(log_p: Tensor, graded: Tensor) -> Tensor:
    """-log p of the target's words [B, L, V], the mean [B] over those that are graded."""
    nll = F.nll_loss(log_p.transpose(1, 2), TARGET, reduction="none")
    return (nll * graded).sum(-1) / graded.sum(-1).clamp(min=1)


NOBODY = torch.zeros_like(WORDS)


@pytest.mark.parametrize("copy", ["none", "uniform", "soft"])
def test_one_block_in_one_pass_is_the_vanilla_model(copy):
    """Nothing is ever shown, in training or not; every word is graded."""
    model = build(source_copy=copy)
    expected = mean_over(said_in_a_pass(model, canvas(NOBODY))[-1], WORDS)
    for moment in (model.train(), model.eval()):
        assert torch.allclose(losses(moment).terms["block_1"], expected, atol=1e-5)


def test_one_block_in_two_passes_is_glancing():
    """As many as half of the wrong words, from all words, by the key's numbers; the rest is graded."""
    model = build(two_pass=True, glance_source="any", glance_start=0.7, glance_end=0.7)
    wrong = said_in_a_pass(model, canvas(NOBODY))[-1].argmax(-1) != TARGET
    count = (0.7 * (wrong & WORDS).sum(-1)).floor().long()
    assert count.sum() >= 3
    drawn = noise.uniform(noise.fold(KEYS, 0), TARGET.shape[1]).masked_fill(~WORDS, -1)
    shown = torch.zeros_like(WORDS)
    for sentence, number in enumerate(count.tolist()):
        shown[sentence, drawn[sentence].topk(number).indices] = True
    expected = mean_over(said_in_a_pass(model, canvas(shown))[-1], WORDS & ~shown)
    found = losses(model.train())
    assert torch.allclose(found.terms["block_1"], expected, atol=1e-5)
    assert found.means["revealed"].total == count.sum()


def test_both_passes_of_glancing_drop_the_same():
    """The first pass is what the graded one would have been, had nothing been shown."""
    model = build(two_pass=True, dropout=0.5, glance_start=1e-6, glance_end=1e-6).train()
    seen: list[Tensor] = []
    read = model.back_end.read
    model.back_end.read = lambda h, *other: (seen.append(h.detach()), read(h, *other))[1]
    losses(model)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_nobody_looks_for_what_will_not_be_shown(kind, monkeypatch):
    """With a share of zero there is no first pass, and no best alignment."""
    model, reads, aligned = build(back_end=kind, blocks=2, two_pass=True, glance_start=0.0, glance_end=0.0), [], []
    read = model.back_end.read

    def watch(h, *other):
        reads.append(read(h, *other))
        return replace(reads[-1], align=lambda: aligned.append(1))

    monkeypatch.setattr(model.back_end, "read", watch)
    assert losses(model.train()).means["revealed"].total == 0
    assert (len(reads), aligned) == (2, [])


@pytest.mark.parametrize("training", [True, False])
def test_a_block_a_layer_that_feeds_itself_is_layer_wise_prediction(training):
    model = build(blocks=4, feed="self", fuse="linear", glance_start=0.0, glance_end=0.0).train(training)
    for fuse in model.decoder.fuses:
        torch.nn.init.normal_(fuse.map.weight, std=0.2)
    found = losses(model).terms
    for number, log_p in enumerate(said_in_a_pass(model, canvas(NOBODY)), 1):
        assert torch.allclose(found[f"block_{number}"], mean_over(log_p, WORDS), atol=1e-5)
    assert model.weights == {f"block_{s}": 1 / 4 for s in range(1, 5)}


def test_a_uniform_share_shown_before_the_first_block_is_masked_training():
    """From none to all but one of the n words, each as often, and the rest is graded."""
    model = build(glance_count="uniform").train()
    source, target = SOURCE[:1].expand(600, -1), TARGET[:1].expand(600, -1)
    encoded = model.encode(source, source.ne(PAD))
    shown: list[Tensor] = []
    read = model.back_end.read
    model.back_end.read = lambda h, *other: (shown.append(other[-1]), read(h, *other))[1]
    with torch.no_grad():
        model.losses(encoded, target, target.ne(PAD), torch.arange(600), 0)
    count = ((shown[0] >= 0) & WORDS[:1]).sum(-1)
    assert torch.bincount(count).tolist() == pytest.approx([150] * 4, abs=40)


def test_an_early_exit_says_what_the_block_says():
    """But for symbols that no translation has, however likely they are."""
    model = build(blocks=4, keep_schedule="none")
    expected = said_in_a_pass(build(blocks=1, decoder_layers=4), canvas(NOBODY))  # the same initial weights
    encoded = model.eval().encode(SOURCE, SOURCE.ne(PAD))
    sizes = TARGET.ne(PAD).sum(-1, keepdim=True)
    for exit_block in range(1, 5):
        written = model.write(encoded, (sizes, TARGET.shape[1]), Finish(), exit_block)
        best = expected[exit_block - 1].index_fill(-1, torch.tensor([BOS, PAD, EOS]), -torch.inf).argmax(-1)
        assert torch.equal(written.tokens[:, 0][WORDS], best[WORDS])


# -- what is graded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_what_is_shown_is_not_graded(kind):
    """Not even a rounding error of gradient reaches what is said at a position that shows its word."""
    model = build(back_end=kind, label_smoothing=0.1 if kind == "length" else 0.0)
    mask = TARGET.ne(PAD)
    lengths = (mask.sum(-1, keepdim=True), TARGET.shape[1]) if kind == "length" else None
    empty = model.canvas(model.encode(SOURCE, SOURCE.ne(PAD)), lengths)
    h = torch.randn(*empty.tokens.shape, 16, requires_grad=True)
    if kind == "dag":
        links = model.back_end.links(h.detach(), empty.mask).detach()
        model.back_end.links.forward = lambda *_: links
    given = model.back_end.given(empty, mask)
    align = model.back_end.read(h, model.decoder.vocabulary, TARGET, mask, empty, given).align()
    numbers = noise.uniform(KEYS, h.shape[1])
    place = torch.where((align >= 0) & (numbers < 0.7), align, given)
    shown = place >= 0
    assert (shown & empty.hidden).sum() > 1
    reading = model.back_end.read(h, model.decoder.vocabulary, TARGET, mask, empty, place)
    reading.nll.sum().backward()
    assert not reading.impossible.any()
    assert (h.grad[shown] == 0).all()
    assert (h.grad[(align >= 0) & ~shown] != 0).any(-1).all()


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_no_gradient_comes_through_the_words_that_are_fed(kind):
    """With a second block that sees the first one's words alone, the first one's layers learn nothing from it."""
    model = build(back_end=kind, blocks=2, feed="self").train()
    model.decoder.fuses[0].forward = lambda h, e, nothing: e
    losses(model).terms["block_2"].sum().backward()
    grads = [p.grad for p in model.decoder.layers[:2].parameters()]
    assert all(grad is None or (grad == 0).all() for grad in grads)
    assert all((p.grad != 0).any() for p in model.decoder.layers[2:].parameters() if p.dim() > 1)


@pytest.mark.parametrize(("weights", "expected"), [("uniform", [1 / 4] * 4), ("increasing", [0.1, 0.2, 0.3, 0.4])])
def test_weights_of_the_blocks(weights, expected):
    assert list(build(blocks=4, block_weights=weights).weights.values()) == pytest.approx(expected)


# -- residual glancing ------------------------------------------------------------------------------------------------


def shown_to_blocks(model: GlancingTranslator, update: int = 0) -> tuple[list[Tensor], list[Reading]]:
    """What each reading of a training step was told to be shown, and the readings."""
    places, readings, read = [], [], model.back_end.read

    def watch(h: Tensor, *other: Tensor) -> Reading:
        places.append(other[-1])
        readings.append(read(h, *other))
        return readings[-1]

    model.back_end.read = watch
    losses(model, update=update)
    model.back_end.read = read
    return places, readings


@pytest.mark.parametrize("kind", BACK_ENDS)
@pytest.mark.parametrize("source", ["wrong", "any"])
def test_the_set_that_is_shown_grows_by_a_share_of_what_is_wrong(kind, source):
    model = build(back_end=kind, blocks=4, glance_source=source, glance_start=0.9, glance_end=0.9).train()
    places, readings = shown_to_blocks(model)
    share, due = 1 - (1 - 0.9) ** (1 / 3), torch.zeros(3).double()
    for s in range(3):
        before, after = places[s] >= 0, places[s + 1] >= 0
        align = readings[s].align()
        wrong = (align >= 0) & ~before & (readings[s].best != TARGET.gather(1, align.clamp(min=0)))
        new = after & ~before
        assert (before <= after).all()
        assert torch.equal(places[s + 1][before], places[s][before])
        assert torch.equal(places[s + 1][new], align[new])
        due += share * wrong.sum(-1)
        assert torch.equal((after & (align >= 0)).sum(-1) - (places[0] >= 0).sum(-1), due.floor().long())
        if source == "wrong":
            assert (new <= wrong).all()
    assert (places[3] >= 0).sum() > (places[0] >= 0).sum() + 3


def test_what_is_rounded_off_is_shown_later():
    """A sixth of three words at each of six boundaries is three words in all, and not none."""
    hidden, owed = torch.ones(1, 9, dtype=torch.bool), torch.zeros(1).double()
    glance, counts = Glance(start=1 - (5 / 6) ** 6, end=0.0, blocks=7), []
    for s in range(1, 7):
        wrong = hidden & (torch.arange(9) < 3)
        chosen, owed = glance(Boundary(s, hidden, wrong, KEYS[:1], owed), 0)
        counts.append(int(chosen.sum()))
    assert counts == [0, 1, 0, 1, 0, 1]


def test_two_passes_show_words_before_the_first_block():
    places, readings = shown_to_blocks(build(blocks=2, two_pass=True, glance_start=0.9, glance_end=0.9).train())
    assert len(places) == 3  # of the first pass, the last block alone is asked
    wrong = WORDS & (readings[0].best != TARGET)  # of the first pass' last block
    for place in places[1:]:
        assert (((place >= 0) & WORDS) <= wrong).all()
    assert (places[2] >= 0).sum() > (places[1] >= 0).sum() > (places[0] >= 0).sum()
    assert torch.equal(((places[1] >= 0) & WORDS).sum(-1), ((1 - 0.1**0.5) * wrong.sum(-1)).floor().long())


def test_less_is_shown_later_in_training():
    model = build(two_pass=True, glance_start=1.0, glance_end=0.0, glance_updates=100).train()
    counts = [losses(model, update=update).means["revealed"].total.item() for update in (0, 50, 100, 10_000)]
    assert counts[0] > counts[1] > counts[2] == counts[3] == 0


@pytest.mark.parametrize("two_pass", [True, False])
def test_nothing_is_shown_in_validation(two_pass):
    model = build(blocks=2, two_pass=two_pass, glance_start=1.0, glance_end=1.0).eval()
    assert losses(model).means["revealed"].total == 0


# -- any batch, any padding, any precision ----------------------------------------------------------------------------


def moved(tokens: Tensor) -> Tensor:
    """The same sentences with the padding on the left, behind a begin that stays in front as models have it."""
    return torch.stack([torch.cat([row[:1], row[row == PAD], row[1:][row[1:] != PAD]]) for row in tokens])


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_loss_does_not_depend_on_batch_or_padding(kind):
    model = build(back_end=kind, blocks=2, source_copy="soft", glance_start=0.9, glance_end=0.9).train()
    together, left = losses(model).terms, losses(model, moved(SOURCE)).terms
    wider = losses(model, F.pad(SOURCE, (0, 3), value=PAD), F.pad(TARGET, (0, 2), value=PAD)).terms
    alone = losses(model, SOURCE[:1, :5], TARGET[:1]).terms
    for name in together:
        assert torch.allclose(together[name], left[name], atol=1e-4), name
        assert torch.allclose(together[name], wider[name], atol=1e-4), name
        assert torch.allclose(together[name][:1], alone[name], atol=1e-4), name


@pytest.mark.parametrize("kind", BACK_ENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite(kind, dtype):
    """Sharp words, and targets that do not fit, which count and cost nothing."""
    model = build(back_end=kind, blocks=2, upsample=1.0, pre_norm=True).train().to(dtype)
    model.decoder.words.weight.data.mul_(30)
    target = torch.cat([TARGET[:2], torch.tensor([[0, 4, 4, 4, 4, EOS]])])
    found = losses(model, target=target)
    total(model, found).backward()
    fits = {"length": [True, True, True], "ctc": [True, True, False], "dag": [False, True, False]}[kind]
    assert found.means["impossible"].total == fits.count(False)
    assert all(share.isfinite().all() for share in found.terms.values())
    for sentence in (number for number, fit in enumerate(fits) if not fit):
        assert all(share[sentence] == 0 for share in found.terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
