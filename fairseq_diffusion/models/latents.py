"""The latents that a model's flags ask for."""

from __future__ import annotations

from typing import Any, Callable

from torch import nn

from fairseq_diffusion.compat.renamed import spelt
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import BOS, size_of
from fairseq_diffusion.models.config import NetworkConfig
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import SharedWords
from fairseq_diffusion.network.target_encoder import TargetEncoder
from fairseq_diffusion.objective.terms import FAMILIES, Objective, parse_terms
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.ranges import COUNT, KEPT, SIZE, WEIGHT, check_ranges
from fairseq_diffusion.states.vectors import LatentState
from fairseq_diffusion.translators.latents import Latents, LatentTraining

RANGES = {
    **dict.fromkeys(("latents", "latents_start"), COUNT),
    **dict.fromkeys(("latents_dim", "latents_layers"), SIZE),
    **dict.fromkeys(("latents_drop", "latents_hide", "latents_source_drop"), KEPT),
    **dict.fromkeys(("latents_loss", "latents_noise", "latents_penalty", "latents_contrast"), WEIGHT),
}
OF_WORDS = ("rounding", "reconstruction", "anchor", "center")  # terms that read words


OF_CHAIN = ("loss", "objective", "prediction", "source_drop", "noise", "penalty", "contrast")
OF_ONE = {  # flags that words with latents beside them do not go with, and what they are to be
    "schedule_modifier": "none",
    "conditioning": "attention",
    "hide_masked": False,
    "unroll": 1,
    "self_conditioning_on": "estimate",
}


def check_latents(cfg: Any) -> None:
    """Refuse what makes no sense, before anything is built."""
    check_ranges(cfg, RANGES)
    joint = getattr(cfg, "state", "") == "joint"
    if joint:
        check_joint(cfg)
    elif "latents" in parse_terms(getattr(cfg, "objective", "mse")):
        raise UserError("--objective latents is of latents that are made along with the words; pass --state joint")
    elif getattr(cfg, "latents_own_time", False):
        raise UserError("--latents-own-time is of latents that are made along with the words; pass --state joint")
    if not cfg.latents or joint:
        return
    for name in parse_terms(cfg.latents_objective, "--latents-objective"):
        if FAMILIES.get(name) != "gaussian" or name in OF_WORDS:
            raise UserError(
                f"--latents-objective has {name}, which is of words; the terms of vectors are mse, v_mse and snr_mse"
            )
    if not cfg.latents_loss:
        raise UserError("--latents-loss is 0, so no latents could be made in decoding; pass a number above 0")
    if cfg.latents_contrast and not cfg.latents_hide:
        raise UserError(
            "--latents-contrast compares two views of a target, which are the same as long as --latents-hide is 0; "
            "pass --latents-hide 0.3"
        )


def check_joint(cfg: Any) -> None:
    """Refuse what does not go with latents that one network makes along with the words."""
    if not cfg.latents:
        raise UserError(
            "--state joint is of words and latents, but --latents is 0; pass a number of them, for example 16"
        )
    if parse_terms(cfg.objective).get("latents", 0) <= 0:
        raise UserError(
            f"--objective {cfg.objective} teaches no latents; with --state joint add latents, as in elbo,latents"
        )
    if not cfg.latents_start:
        raise UserError(
            "--latents-start is 0, but with --state joint the encoder of targets is learnt up to that update only, so "
            "it would never be; pass a number of updates, or 1 where --finetune-from-model names a model that has one"
        )
    for name, value in OF_ONE.items():
        if getattr(cfg, name) != value:
            raise UserError(f"{spelt(name)} {getattr(cfg, name)} is not made for --state joint; pass {value}")
    for name in (f"latents_{each}" for each in OF_CHAIN):
        if getattr(cfg, name) != getattr(NetworkConfig, name):
            raise UserError(
                f"{spelt(name)} is of latents that a chain of their own makes before the words; with --state joint "
                "drop it"
            )


def add_latents(cfg: Any, state: Any, word_schedule: Schedule) -> None:
    """Make a state of words, of `cfg`, that of words and latents."""
    words, longest = SharedWords(state, cfg.hidden), cfg.max_target_positions + BOS
    size = size_of(cfg), cfg.latents_layers, cfg.latents, cfg.latents_dim, longest
    schedule = Schedule(str(cfg.latents_schedule), "factor_vp", cfg.latents_noise_factor)
    how = cfg.latents_own_time, cfg.latents_drop, cfg.latents_start
    encoder = TargetEncoder(words, *size, one_norm=True, hide=cfg.latents_hide)
    state.with_latents(encoder, cfg.latents_dim, schedule, word_schedule, *how)


def latents_of(cfg: Any, words: Callable[[], nn.Module]) -> Latents | None:
    """The latents that `cfg` names, made of targets that what `words` makes reads; None without any."""
    check_latents(cfg)
    if not cfg.latents or getattr(cfg, "state", "") == "joint":
        return None
    size, state = size_of(cfg), LatentState(cfg.latents_dim)
    size_of_encoder = size, cfg.latents_layers, cfg.latents, state.dim, cfg.max_target_positions + BOS
    how = LatentTraining(
        weight=cfg.latents_loss,
        start=cfg.latents_start,
        drop=cfg.latents_drop,
        noise=cfg.latents_noise,
        penalty=cfg.latents_penalty,
        contrast=cfg.latents_contrast,
    )
    return Latents(
        encoder=TargetEncoder(words(), *size_of_encoder, one_norm=not cfg.latents_penalty, hide=cfg.latents_hide),
        denoiser=Denoiser(state, size, cfg.latents_layers, cfg.latents),
        state=state,
        schedule=Schedule(str(cfg.latents_schedule), "factor_vp", cfg.latents_noise_factor),
        prediction=PREDICTIONS[str(cfg.latents_prediction)],
        objective=Objective(cfg.latents_objective),
        training=how,
        source_drop=cfg.latents_source_drop,
        seed=cfg.seed,
    )
