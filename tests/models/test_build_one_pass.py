"""Flags that do not go together are refused in a sentence, and every architecture builds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from blocks import ALIGNMENTS, MASK, SMALL, build, losses

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.models.one_pass_config import OnePassConfig  # noqa: E402
from fairseq_diffusion.systems.presets import PRESETS  # noqa: E402

PLAIN = {"alignment": "length", "label_smoothing": 0.0}
ARCHITECTURES = [name for name in PRESETS if PRESETS[name].model == "glancing"]
TINY = {name: SMALL[name] for name in ("hidden", "inner", "heads", "encoder_layers", "length_classes")}
POSITIONS = {"seed": 1, **{name: SMALL[name] for name in ("max_source_positions", "max_target_positions")}}


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"hidden": 15}, "--hidden 15 .*--heads 2"),
        ({"encoder_layers": 0}, "--encoder-layers is 0 and --decoder-layers 4"),
        ({"decoder_layers": 0}, "--encoder-layers is 1 and --decoder-layers 0"),
        ({"decoder_layers": -4, "blocks": 2}, "--decoder-layers -4"),
        ({"label_smoothing": 1.0}, "--label-smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "--label-smoothing is -0.1"),
        ({"blocks": 3}, "--blocks 3 .*--decoder-layers 4.*divisor"),
        ({"blocks": 8}, "--blocks 8"),
        ({"blocks": 0}, "--blocks 0"),
        ({"blocks": -2}, "--blocks -2"),
        ({"glance_start": 1.1}, "--glance-start is 1.1"),
        ({"glance_start": -0.1}, "--glance-start is -0.1"),
        ({"glance_end": 1.1}, "--glance-end is 1.1"),
        ({"glance_end": -0.1}, "--glance-end is -0.1"),
        ({"glance_updates": 0}, "--glance-updates is 0"),
        ({"passes": 0}, "--passes is 0"),
        ({"glance_count": "schedule", "keep_schedule": "none"}, "--keep-schedule has, which is none"),
        ({"alignment": "ctc", "upsample": 0.9}, "--upsample is 0.9"),
        ({"alignment": "dag", "upsample": 0.0}, "--upsample is 0.0"),
        ({"alignment": "ctc", "glance_count": "uniform"}, "--alignment ctc.*--two-pass"),
        ({"alignment": "dag", "glance_count": "uniform"}, "--alignment dag.*--two-pass"),
        ({"alignment": "ctc", "label_smoothing": 0.1}, "--label-smoothing 0.1 .*--alignment ctc"),
        ({"alignment": "dag", "label_smoothing": 0.1}, "--label-smoothing 0.1 .*--alignment dag"),
        ({"length_loss": 0.0}, "--length-loss is 0.0"),
        ({"duration_classes": 5}, "--duration-classes 5 has no meaning with --length-target difference"),
        ({"length_target": "durations", "duration_classes": 1}, "--duration-classes is 1; pass a number from 2"),
        ({"alignment": "ctc", "upsample": float("inf")}, "--upsample is inf; pass a number from 0 to 1,000"),
        ({"alignment": "dag", "upsample": float("nan")}, "--upsample is nan"),
        ({"passes": 10**12}, "--passes is 1000000000000"),
    ],
)
def test_refused(flags, words):
    with pytest.raises(UserError, match=words):
        build(**{**PLAIN, **flags})


@pytest.mark.parametrize(
    "flags",
    [
        {"blocks": 4},
        {"glance_start": 0.0, "glance_end": 1.0, "glance_updates": 1},
        {"upsample": 0.5},  # which a predicted length does not read
        {"label_smoothing": 0.9},
        {"glance_count": "uniform"},
        {"alignment": "ctc", "upsample": 1.0},
        {"alignment": "ctc", "length_loss": 0.0},  # there is no length predictor
        {"alignment": "dag", "glance_count": "uniform", "two_pass": True},
    ],
)
def test_allowed(flags):
    build(**{**PLAIN, **flags})


@pytest.mark.parametrize("kind", ALIGNMENTS)
@pytest.mark.parametrize("upsample, tokens, canvas", [(2.0, 14, 28), (2.5, 13, 32), (1.13, 100, 113)])
def test_the_longest_sentences_have_positions(kind, upsample, tokens, canvas):
    """As long as the task allows, with the begin that the model puts before them; 1.13 * 100 is 112.99999999999999."""
    model = build(alignment=kind, upsample=upsample, max_source_positions=tokens - 1, max_target_positions=17)
    source, target = torch.full((1, tokens), 5), torch.full((1, 18), 6)
    assert all(share.isfinite().all() for share in losses(model, source, target).terms.values())
    assert model.decoder.positions.num_embeddings == (18 if kind == "length" else canvas)
    assert model.encoder.positions.num_embeddings == tokens


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_only_a_predicted_length_has_a_predictor(kind):
    assert (build(alignment=kind).length is not None) == (kind == "length")


@pytest.mark.parametrize("shared", [True, False])
def test_the_encoder_reads_the_targets_words_if_asked(shared):
    """One parameter then, under one name; otherwise a table for the source's words, without the mask."""
    model = build(share_embeddings=shared)
    tables = {name: tuple(p.shape) for name, p in model.named_parameters() if p.shape in {(MASK, 16), (MASK + 1, 16)}}
    expected = {} if shared else {"encoder.embedding.weight": (MASK, 16)}
    assert tables == {"decoder.words.weight": (MASK + 1, 16), **expected}
    source = torch.tensor([[4, 5]])
    assert torch.equal(model.encoder.embedding(source), model.decoder.words(source)) == shared


def test_flags_reach_the_parts():
    """None of them at its default."""
    model = build(
        blocks=2,
        fuse="gated",
        feed="self",
        source_copy="soft",
        alignment="length",
        upsample=5.0,
        label_smoothing=0.2,
        glance_count="schedule",
        glance_source="any",
        glance_start=0.9,
        glance_end=0.8,
        glance_updates=7,
        two_pass=True,
        keep_schedule="cosine",
        block_weights="increasing",
        loss_normaliser="tokens",
        length_loss=0.3,
        dropout=0.3,
        attention_dropout=0.2,
        activation_dropout=0.0,
    )
    assert vars(model.glance) == {
        "count": "schedule",
        "source": "any",
        "start": 0.9,
        "end": 0.8,
        "updates": 7,
        "blocks": 2,
        "keep": "cosine",
        "two_pass": True,
    }
    kinds = [type(part).__name__ for part in (model.decoder.fuses[0], model.copy, model.alignment)]
    assert kinds == ["GatedFuse", "SoftCopy", "LengthAlignment"]
    alignment = model.alignment
    assert (alignment.upsample, alignment.label_smoothing, alignment.longest) == (5.0, 0.2, 40)
    assert (model.feed, model.reduction.normaliser) == ("self", "tokens")
    layer = model.decoder.layers[0]
    dropouts = layer.residuals[0].dropout.p, layer.self_attention.dropout, layer.feed_forward.dropout.p
    assert dropouts == (0.3, 0.2, 0.0)
    assert model.weights == pytest.approx({"block_1": 1 / 3, "block_2": 2 / 3, "length": 0.3})


def test_dropout_is_everywhere_unless_a_flag_differs():
    layer = build(dropout=0.3).encoder.layers[0]
    assert (layer.self_attention.dropout, layer.feed_forward.dropout.p) == (0.3, 0.3)
    original = build(**{**PRESETS["glat_iwslt_de_en"].fields, **TINY, **POSITIONS, "dropout": 0.3}).encoder.layers[0]
    assert (original.self_attention.dropout, original.feed_forward.dropout.p) == (0.0, 0.0)


@pytest.mark.parametrize("reveal", ["positions", "words"])
def test_what_ctc_reveals(reveal):
    assert build(alignment="ctc", reveal=reveal).alignment.words_only == (reveal == "words")


def fields(name: str) -> dict[str, Any]:
    """An architecture's own, but for its size."""
    return {**PRESETS[name].fields, **TINY}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_builds(name):
    """From fields that the configuration knows, with nothing else changed than sizes."""
    own = fields(name)
    assert own.keys() <= set(vars(OnePassConfig()))
    model = build(**{**vars(OnePassConfig()), **own, **POSITIONS})
    assert model.decoder.blocks == own["blocks"]
    assert model.alignment.has_ends == (own["alignment"] != "ctc")
    full = PRESETS[name].fields
    assert full["hidden"] % full.get("heads", 8) == 0


def test_architectures_are_all_there():
    bases = {"nat", "cmlm", "glat", "glat_ctc", "dslp", "dslp_ctc", "da_transformer"}
    bases |= {"diffglat", "diffglat_ctc", "diffglat_dag"}
    assert bases <= {*ARCHITECTURES}


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name.endswith(("_toy", "_toy_ctc", "_toy_dag"))])
def test_every_architecture_takes_a_step(name):
    """In training, from its first loss: all its own parameters are of use, the mask's row too."""
    model = build(**{**vars(OnePassConfig()), **fields(name), **POSITIONS, "glance_start": 0.9}).train()
    found = losses(model)
    found.total.backward()
    assert found.total.isfinite()
    unused = [parameter for parameter, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not unused
    assert found.means["impossible"].total == 0
