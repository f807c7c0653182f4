"""The one-pass translator: its special cases, what has a loss, and what is revealed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from blocks import ALIGNMENTS, BOS, EOS, KEYS, MASK, PAD, SOURCE, TARGET, build, lengths_of, losses
from torch import Tensor

from fairseq_diffusion.alignment.base import Scored
from fairseq_diffusion.alignment.glancing import Boundary, Glance
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.translators.one_pass import OnePassTranslator
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions

WORDS = TARGET.ne(PAD) & TARGET.ne(EOS)
WORDS[:, 0] = False  # neither begin nor end


# -- the ancestors, written out in a straight line --------------------------------------------------------------------


def predicted(model: OnePassTranslator, z: Tensor, source: Tensor = SOURCE) -> list[Tensor]:
    """Log-probabilities [B, L, V] behind each layer, where each reads the words that the one before it predicts."""
    decoder, encoded = model.decoder, model.encode(source, source.ne(PAD))
    mask, hidden = TARGET.ne(PAD), z == MASK
    x = decoder.words(z)
    copied = model.copy(model.encoder.embedding(source), source.ne(PAD), mask)
    h = decoder.norm(decoder.dropout(x if copied is None else x + copied * hidden[..., None]) + decoder.positions(mask))
    found: list[Tensor] = []
    for number, layer in enumerate(decoder.layers):
        if decoder.blocks > 1 and number:
            fed = torch.where(hidden, found[-1].argmax(-1), z)
            e = 16**0.5 * decoder.words(fed)
            fuse = decoder.fuses[number - 1].map
            h = torch.cat([h, e], -1) @ fuse.weight.T + fuse.bias
        h = layer(h, attention_bias(mask, h.dtype), encoded.memory[number])
        found.append((h @ decoder.words.weight[:MASK].T).log_softmax(-1))
    return found


def canvas(shown: Tensor) -> Tensor:
    """z [B, L]: the target where `shown` [B, L] or at the ends, the mask elsewhere."""
    return torch.where(WORDS & ~shown, MASK, TARGET)


def mean_over(log_p: Tensor, graded: Tensor) -> Tensor:
    """-log p of the target's words, log_p [B, L, V]: the mean [B] over those that are graded."""
    nll = F.nll_loss(log_p.transpose(1, 2), TARGET, reduction="none")
    return (nll * graded).sum(-1) / graded.sum(-1).clamp(min=1)


NOTHING = torch.zeros_like(WORDS)


@pytest.mark.parametrize("copy", ["none", "uniform", "soft"])
def test_one_block_in_one_pass_is_the_vanilla_model(copy):
    """Nothing is ever shown, in training or not; every word is graded."""
    model = build(source_copy=copy)
    expected = mean_over(predicted(model, canvas(NOTHING))[-1], WORDS)
    for moment in (model.train(), model.eval()):
        assert torch.allclose(losses(moment).terms["block_1"], expected, atol=1e-5)


def test_one_block_in_two_passes_is_glancing():
    """As many as half of the wrong words, from all words, by the key's numbers; the rest is graded."""
    model = build(two_pass=True, glance_source="any", glance_start=0.7, glance_end=0.7)
    wrong = predicted(model, canvas(NOTHING))[-1].argmax(-1) != TARGET
    count = (0.7 * (wrong & WORDS).sum(-1)).floor().long()
    assert count.sum() >= 3
    drawn = noise.uniform(noise.fold(KEYS, 0), TARGET.shape[1]).masked_fill(~WORDS, -1)
    shown = torch.zeros_like(WORDS)
    for sentence, number in enumerate(count.tolist()):
        shown[sentence, drawn[sentence].topk(number).indices] = True
    expected = mean_over(predicted(model, canvas(shown))[-1], WORDS & ~shown)
    found = losses(model.train())
    assert torch.allclose(found.terms["block_1"], expected, atol=1e-5)
    assert found.means["revealed"].total == count.sum()


def test_both_passes_of_glancing_drop_the_same():
    """The first pass is what the graded one would have been, had nothing been shown."""
    model = build(two_pass=True, dropout=0.5, glance_start=1e-6, glance_end=1e-6).train()
    seen: list[Tensor] = []
    score = model.alignment.score
    model.alignment.score = lambda h, *other: (seen.append(h.detach()), score(h, *other))[1]
    losses(model)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_nothing_is_computed_for_what_will_not_be_shown(kind, monkeypatch):
    """With a share of zero there is no first pass, and no best alignment."""
    model, scored, aligned = build(alignment=kind, blocks=2, two_pass=True, glance_start=0.0, glance_end=0.0), [], []
    score = model.alignment.score

    def watch(h, *other):
        scored.append(score(h, *other))
        return replace(scored[-1], align=lambda: aligned.append(1))

    monkeypatch.setattr(model.alignment, "score", watch)
    assert losses(model.train()).means["revealed"].total == 0
    assert (len(scored), aligned) == (2, [])


@pytest.mark.parametrize("training", [True, False])
def test_a_block_a_layer_that_feeds_itself_is_layer_wise_prediction(training):
    model = build(blocks=4, feed="self", fuse="linear", glance_start=0.0, glance_end=0.0).train(training)
    for fuse in model.decoder.fuses:
        torch.nn.init.normal_(fuse.map.weight, std=0.2)
    found = losses(model).terms
    for number, log_p in enumerate(predicted(model, canvas(NOTHING)), 1):
        assert torch.allclose(found[f"block_{number}"], mean_over(log_p, WORDS), atol=1e-5)


def test_a_uniform_share_shown_before_the_first_block_is_masked_training():
    """From none to all but one of the n words, each as often, and the rest is graded."""
    model = build(glance_count="uniform").train()
    source, target = SOURCE[:1].expand(600, -1), TARGET[:1].expand(600, -1)
    shown: list[Tensor] = []
    score = model.alignment.score
    model.alignment.score = lambda h, *other: (shown.append(other[-1]), score(h, *other))[1]
    with torch.no_grad():
        model.losses(source, source.ne(PAD), target, target.ne(PAD), torch.arange(600), 0)
    count = ((shown[0] >= 0) & WORDS[:1]).sum(-1)
    assert torch.bincount(count).tolist() == pytest.approx([150] * 4, abs=40)


def test_with_words_all_hidden_words_of_a_batch_count_alike():
    """A sentence of one hidden word has the weight of one word, and not that of its length."""
    model, hidden = build(glance_count="uniform", loss_normaliser="words").train(), []
    score = model.alignment.score
    model.alignment.score = lambda h, *other: (hidden.append(WORDS & (other[-1] < 0)), score(h, *other))[1]
    found = losses(model)
    log_p = predicted(model, canvas(~hidden[0]))[-1]
    nll = F.nll_loss(log_p.transpose(1, 2), TARGET, reduction="none")
    assert len(set(hidden[0].sum(-1).tolist())) > 1
    assert found.terms["block_1"].sum() / found.sample_size == pytest.approx(nll[hidden[0]].mean().item(), abs=1e-5)


def test_an_early_exit_gives_the_words_that_the_block_predicts():
    """But for symbols that no translation has, however probable they are."""
    model = build(blocks=4)
    expected = predicted(build(blocks=1, decoder_layers=4), canvas(NOTHING))  # the same initial weights
    encoded = model.eval().encode(SOURCE, SOURCE.ne(PAD))
    lengths = lengths_of(TARGET.ne(PAD).sum(-1, keepdim=True))
    for exit_block in range(1, 5):
        decode = model.decoder_for(OnePassOptions(exit_block=exit_block, keep_schedule="none"))
        tokens = decode(encoded, lengths, KEYS[:, None, None]).tokens
        best = expected[exit_block - 1].index_fill(-1, torch.tensor([BOS, PAD, EOS]), -torch.inf).argmax(-1)
        assert torch.equal(tokens[tokens >= 0], best[WORDS])


# -- what is graded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_what_is_shown_is_not_graded(kind):
    """Not even a rounding error of gradient reaches what is predicted at a position that shows its word."""
    model = build(alignment=kind, label_smoothing=0.1 if kind == "length" else 0.0)
    mask = TARGET.ne(PAD)
    lengths = lengths_of(mask.sum(-1, keepdim=True)) if kind == "length" else None
    empty = model.canvas(model.encode(SOURCE, SOURCE.ne(PAD)), lengths)
    h = torch.randn(*empty.tokens.shape, 16, requires_grad=True)
    if kind == "dag":
        links = model.alignment.links(h.detach(), empty.mask).detach()
        model.alignment.links.forward = lambda *_: links
    given = model.alignment.given(empty, mask)
    align = model.alignment.score(h, model.decoder.vocabulary, TARGET, mask, empty, given).align()
    numbers = noise.uniform(KEYS, h.shape[1])
    index = torch.where((align >= 0) & (numbers < 0.7), align, given)
    shown = index >= 0
    assert (shown & empty.hidden).sum() > 1
    scored = model.alignment.score(h, model.decoder.vocabulary, TARGET, mask, empty, index)
    scored.nll.sum().backward()
    assert not scored.impossible.any()
    assert (h.grad[shown] == 0).all()
    assert (h.grad[(align >= 0) & ~shown] != 0).any(-1).all()


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_no_gradient_comes_through_the_words_that_are_fed(kind):
    """With a second block that sees the first one's words alone, the first one's layers learn nothing from it."""
    model = build(alignment=kind, blocks=2, feed="self").train()
    model.decoder.fuses[0].forward = lambda h, e, nothing: e
    model.weights = {"block_1": 0.0, "block_2": 1.0, "length": 0.0}
    losses(model).total.backward()
    grads = [p.grad for p in model.decoder.layers[:2].parameters()]
    assert all(grad is None or (grad == 0).all() for grad in grads)
    assert all((p.grad != 0).any() for p in model.decoder.layers[2:].parameters() if p.dim() > 1)


@pytest.mark.parametrize(("weights", "expected"), [("uniform", [1 / 4] * 4), ("increasing", [0.1, 0.2, 0.3, 0.4])])
def test_the_blocks_and_the_length_have_weights(weights, expected):
    found = losses(build(blocks=4, block_weights=weights, length_loss=0.7))
    assert [*found.terms] == [*(f"block_{s}" for s in range(1, 5)), "length"]
    weighted = [weight * float(share.sum()) for weight, share in zip([*expected, 0.7], found.terms.values())]
    assert found.total.item() == pytest.approx(sum(weighted), rel=1e-5)


# -- residual glancing ------------------------------------------------------------------------------------------------


def shown_to_blocks(model: OnePassTranslator) -> tuple[list[Tensor], list[Scored]]:
    """The index of what was shown to each block that a training step scored, and its scores."""
    shown, found, score = [], [], model.alignment.score

    def watch(h: Tensor, *other: Tensor) -> Scored:
        shown.append(other[-1])
        found.append(score(h, *other))
        return found[-1]

    model.alignment.score = watch
    losses(model)
    return shown, found


@pytest.mark.parametrize(("kind", "reveal"), [*((kind, "positions") for kind in ALIGNMENTS), ("ctc", "words")])
@pytest.mark.parametrize("source", ["wrong", "any"])
def test_the_set_that_is_shown_grows_by_a_share_of_what_is_wrong(kind, reveal, source):
    """With `reveal` words no blank of CTC, column 0 of the target, is ever shown or counted."""
    glance = {"glance_source": source, "glance_start": 0.9, "glance_end": 0.9}
    model = build(alignment=kind, blocks=4, reveal=reveal, **glance).train()
    shown, scored = shown_to_blocks(model)
    first = int(reveal == "words")
    assert not first or all((index != 0).all() for index in shown)
    share, due = 1 - (1 - 0.9) ** (1 / 3), torch.zeros(3).double()
    for s in range(3):
        before, after = shown[s] >= 0, shown[s + 1] >= 0
        align = scored[s].align()
        wrong = (align >= first) & ~before & (scored[s].best != TARGET.gather(1, align.clamp(min=0)))
        new = after & ~before
        assert (before <= after).all()
        assert torch.equal(shown[s + 1][before], shown[s][before])
        assert torch.equal(shown[s + 1][new], align[new])
        due += share * wrong.sum(-1)
        assert torch.equal((after & (align >= first)).sum(-1) - (shown[0] >= 0).sum(-1), due.floor().long())
        if source == "wrong":
            assert (new <= wrong).all()
    assert (shown[3] >= 0).sum() > (shown[0] >= 0).sum() + 3


def test_what_is_rounded_off_is_shown_later():
    """A sixth of three words at each of six boundaries is three words in all, and not none."""
    hidden, remainder = torch.ones(1, 9, dtype=torch.bool), torch.zeros(1).double()
    glance, counts = Glance(start=1 - (5 / 6) ** 6, end=0.0, blocks=7), []
    for s in range(1, 7):
        wrong = hidden & (torch.arange(9) < 3)
        chosen, remainder = glance(Boundary(s, hidden, wrong, KEYS[:1], remainder), 0)
        counts.append(int(chosen.sum()))
    assert counts == [0, 1, 0, 1, 0, 1]


def test_two_passes_show_words_before_the_first_block():
    shown, scored = shown_to_blocks(build(blocks=2, two_pass=True, glance_start=0.9, glance_end=0.9).train())
    assert len(shown) == 3  # of the first pass, the last block alone is scored
    wrong = WORDS & (scored[0].best != TARGET)  # of the first pass' last block
    for index in shown[1:]:
        assert (((index >= 0) & WORDS) <= wrong).all()
    assert (shown[2] >= 0).sum() > (shown[1] >= 0).sum() > (shown[0] >= 0).sum()
    assert torch.equal(((shown[1] >= 0) & WORDS).sum(-1), ((1 - 0.1**0.5) * wrong.sum(-1)).floor().long())


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


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_loss_does_not_depend_on_batch_or_padding(kind):
    model = build(alignment=kind, blocks=2, source_copy="soft", glance_start=0.9, glance_end=0.9).train()
    together, left = losses(model).terms, losses(model, moved(SOURCE)).terms
    wider = losses(model, F.pad(SOURCE, (0, 3), value=PAD), F.pad(TARGET, (0, 2), value=PAD)).terms
    alone = losses(model, SOURCE[:1, :5], TARGET[:1]).terms
    for name in together:
        assert torch.allclose(together[name], left[name], atol=1e-4), name
        assert torch.allclose(together[name], wider[name], atol=1e-4), name
        assert torch.allclose(together[name][:1], alone[name], atol=1e-4), name


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite(kind, dtype):
    """Sharp words, and targets that do not fit, which count and cost nothing."""
    model = build(alignment=kind, blocks=2, upsample=1.0, pre_norm=True).train().to(dtype)
    model.decoder.words.weight.data.mul_(30)
    target = torch.cat([TARGET[:2], torch.tensor([[0, 4, 4, 4, 4, EOS]])])
    found = losses(model, target=target)
    found.total.backward()
    fits = {"length": [True, True, True], "ctc": [True, True, False], "dag": [False, True, False]}[kind]
    assert found.means["impossible"].total == fits.count(False)
    assert all(share.isfinite().all() for share in found.terms.values())
    for sentence in (number for number, fit in enumerate(fits) if not fit):
        assert all(share[sentence] == 0 for share in found.terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
