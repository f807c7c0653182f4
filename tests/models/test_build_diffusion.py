"""Flags that do not go together are refused in a sentence; a few that look odd are not."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.alignment.base import Symbols  # noqa: E402
from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.models.config import DiffusionConfig  # noqa: E402
from fairseq_diffusion.models.diffusion import build_diffusion  # noqa: E402
from fairseq_diffusion.models.diffusion_checks import parse_freeze  # noqa: E402

SMALL = {"hidden": 16, "inner": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "latent_dim": 4}
SYMBOLS = Symbols(0, 1, 2, -1)
OTHERS = {"max_source_positions": 20, "max_target_positions": 20, "seed": 1}  # which fairseq fills in


SEQ = {"schedule_modifier": "position", "embedding_norm": "none"}
TOKENS = {"state": "tokens", "objective": "elbo", "self_conditioning": "none", "latent_dim": 16}
PLAID = {"schedule": "log_snr", "prediction": "posterior", "objective": "snr_mse,reconstruction"}


def build(**flags):
    cfg = DiffusionConfig()
    for name, value in {**SMALL, **OTHERS, **flags}.items():
        assert hasattr(cfg, name)
        setattr(cfg, name, value)
    return build_diffusion(cfg, 12, 12, SYMBOLS)


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"encoder_layers": 0}, "--encoder-layers is 0 and --decoder-layers 1"),
        ({"decoder_layers": 0}, "--encoder-layers is 1 and --decoder-layers 0"),
        ({"noise_factor": 2.0}, "--schedule-modifier factor or factor_vp"),
        ({"noise_factor": 2.0, "schedule_modifier": "clip"}, "no meaning for --schedule-modifier clip"),
        ({"noise_factor": 0.0, "schedule_modifier": "factor"}, "--noise-factor is 0.0"),
        ({"noise_factor": -1.0}, "--noise-factor is -1.0"),
        ({"diffusion_steps": -5}, "--diffusion-steps is -5"),
        ({"diffusion_steps": 1}, "--diffusion-steps is 1; pass 2 or more"),
        ({"prediction": "v", "schedule_modifier": "factor", "noise_factor": 4.0}, "--schedule-modifier factor_vp"),
        ({"source_drop": 1.0}, "--source-drop is 1.0"),
        ({"source_drop": -0.1}, "--source-drop is -0.1"),
        ({"schedule_modifier": "clip", "embedding_norm": "scaled"}, "--embedding-norm l2"),
        ({"heads": 0}, "--heads is 0; pass a number from 1 to 1,000,000"),
        ({"duration_classes": 5}, "--duration-classes 5 has no meaning with --length-target difference"),
        ({"length_target": "durations", "duration_classes": 1}, "--duration-classes is 1; pass a number from 2"),
        ({"hidden": 0}, "--hidden is 0"),
        ({"inner": -1}, "--inner is -1"),
        ({"latent_dim": 10**12}, "--latent-dim is 1000000000000"),
        ({"encoder_layers": 10**12}, "--encoder-layers is 1000000000000"),
        ({"dropout": float("nan")}, "--dropout is nan; pass a number from 0 to 0.99"),
        ({"attention_dropout": 3.0}, "--attention-dropout is 3.0"),
        ({"noise_factor": float("nan"), "schedule_modifier": "factor"}, "--noise-factor is nan"),
        ({"noise_factor": float("inf"), "schedule_modifier": "factor"}, "--noise-factor is inf"),
        ({"diffusion_steps": 10**12}, "--diffusion-steps is 1000000000000"),
        ({"objective": "mse=nan,rounding"}, "'mse=nan' without a number"),
        ({"embedding_noise": -1.0}, "--embedding-noise is -1.0"),
        ({"embedding_noise": 0.1, **TOKENS}, "--embedding-noise 0.1 has no meaning"),
        ({"own_readout": True}, "pass --freeze embeddings"),
        ({"own_readout": True, "freeze": "embeddings", "objective": "mse"}, "learns by rounding, which"),
        ({"own_readout": True, **TOKENS}, "--own-readout True has no meaning"),
        ({"canvas_blanks": 0.1}, "--canvas-blanks 0.1 has no meaning with --length-target difference"),
        (
            {"canvas_blanks": 0.1, "length_target": "canvas", "canvas_positions": 9, **SEQ},
            "moves words to other places",
        ),
        ({"canvas_blanks": 1.0, "length_target": "canvas", "canvas_positions": 9}, "--canvas-blanks is 1.0"),
        (
            {**PLAID, "schedule": "sigma_t"},
            "sigma_t leaves no noise at time 0; pass --schedule, one of: edm, .*log_snr",
        ),
        ({**PLAID, "diffusion_steps": 9}, "pass --diffusion-steps 0"),
        ({**PLAID, "embedding_noise": 0.1}, "pass --embedding-noise 0"),
        ({**PLAID, "time_min": 0.1}, "pass --time-min 0"),
        ({**PLAID, "embedding_norm": "none", "prediction": "expected"}, "pass --embedding-norm l2"),
        ({**PLAID, "schedule_modifier": "warp"}, "pass --schedule-modifier, one of: none, factor_vp, least_variance"),
        ({**PLAID, "objective": "snr_mse"}, "keeps the embeddings apart"),
        ({**PLAID, "time_sampler": "logit_normal"}, "snr_mse is a bound as a mean over even times"),
        ({**PLAID, "objective": "reconstruction"}, "nothing in --objective reconstruction trains; add anchor=1"),
    ],
)
def test_refused(flags, words):
    with pytest.raises(UserError, match=words):
        build(**flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"prediction": "v", "schedule_modifier": "factor_vp", "noise_factor": 4.0},
        {"prediction": "v", "schedule_modifier": "factor", "noise_factor": 1.0},
        {"schedule_modifier": "clip", "embedding_norm": "layer"},
        {"schedule_modifier": "factor", "noise_factor": 0.5, "diffusion_steps": 2},
        {"source_drop": 0.0},
        {**PLAID, "schedule_modifier": "least_variance"},
        {"objective": "mse", "freeze": "embeddings"},
        {"prediction": "expected", "objective": "mse=1,rounding=1"},
    ],
)
def test_allowed(flags):
    build(**flags)


@pytest.mark.parametrize("mask, ids", [(-1, [0, 1, 2]), (11, [0, 1, 2, 11])])
def test_special_symbols_are_no_words(mask, ids):
    cfg = DiffusionConfig(**SMALL, **OTHERS)
    assert build_diffusion(cfg, 12, 12, SYMBOLS._replace(mask=mask)).special_ids.tolist() == ids


def test_parts_to_freeze_have_names():
    assert parse_freeze("") == [] and parse_freeze("encoder, embeddings") == ["encoder", "embeddings"]
    with pytest.raises(
        UserError, match="names 'decoder', which is no part of a model; choose from: encoder, embeddings,"
    ):
        parse_freeze("encoder,decoder")


def test_shared_embeddings_are_one_parameter_for_optimisers():
    translator = build(share_embeddings=True, embedding_norm="scaled")
    names = [name for name, p in translator.named_parameters() if p.shape == (12, 4)]
    assert names == ["state.weight"]
    assert [key for key in translator.state_dict() if key.startswith("encoder.embedding")] == [
        "encoder.embedding.project.weight"
    ]


def test_the_activation_of_the_time_map():
    assert [type(build(time_activation=name).denoiser.time.map[1]).__name__ for name in ("silu", "relu")] == [
        "SiLU",
        "ReLU",
    ]


def test_a_config_as_checkpoints_keep_it_builds_the_same():
    """fairseq hands over an omegaconf dictionary, whose choices are strings or enums."""
    cfg = OmegaConf.structured(DiffusionConfig)
    OmegaConf.set_struct(cfg, False)
    for name, value in {**SMALL, **OTHERS, "latent_map": "linear", "time_features": "sinusoid"}.items():
        cfg[name] = value
    wanted = build(latent_map="linear", time_features="sinusoid").state_dict()
    found = build_diffusion(cfg, 12, 12, SYMBOLS).state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
