"""The sizes that systems are entered in, one for each pair of languages that papers report on; and what several systems
have in common."""

from __future__ import annotations

from typing import Any

from fairseq_diffusion.systems.presets import preset

# The toy's languages have no word in common, so there is nothing to share.
TOY: dict[str, Any] = {
    "hidden": 128,
    "inner": 256,
    "heads": 4,
    "encoder_layers": 3,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "share_embeddings": False,
    "glance_updates": 1600,
}
SIZES: dict[str, dict[str, Any]] = {
    "toy": TOY,
    "iwslt_de_en": {"inner": 1024, "heads": 4, "dropout": 0.3},
    "wmt_en_de": {"inner": 2048, "heads": 8, "dropout": 0.1},
    "wmt16_en_ro": {"inner": 2048, "heads": 8, "dropout": 0.1},
}

# What the systems that go on from Diffusion-LM (Li et al. 2022) have in common.
DIFFUSION_LM: dict[str, Any] = {
    "model": "diffusion",
    "latent_dim": 128,
    "embedding_norm": "none",
    "embedding_init_std": 1.0,
    "embedding_noise": 0.1,
    "share_embeddings": True,
    "schedule": "sqrt_offset",
    "diffusion_steps": 2000,
    "prediction": "x_0",
    "objective": "mse=1,rounding=1,prior=1",
    "loss_normaliser": "words",
    "sampler": "ddpm",
    "grid": "respaced",
    "length_target": "canvas",
    "canvas_positions": 64,
    "latent_map": "tanh",
    "time_features": "sinusoid",
    "activation": "gelu",
    "hidden": 512,
}


def sized(name: str, suffix: str = "", **toy: Any) -> None:
    """Enter `name` + `suffix`, a one-pass system, in every size, as name_SIZEsuffix; `toy` is what the toy's has of its
    own."""
    for size, fields in SIZES.items():
        preset(f"{name}_{size}{suffix}", base=name + suffix, **fields, **(toy if size == "toy" else {}))


def sized_diffusion(name: str, suffix: str = "", **own: dict[str, Any]) -> None:
    """Enter `name` + `suffix`, which denoises step by step, in every size; `own` is what a size has of its own."""
    for size, fields in SIZES.items():
        fields = {field: value for field, value in fields.items() if field != "glance_updates"}
        if size == "toy":
            fields["decoder_layers"] = 3
        preset(f"{name}_{size}{suffix}", base=name + suffix, **{**fields, **own.get(size, {})})
