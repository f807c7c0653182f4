"""The latents that a model's flags ask for."""

from __future__ import annotations

from typing import Any, Callable

from torch import nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import BOS, size_of
from fairseq_diffusion.network.denoiser import Denoiser
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


def check_latents(cfg: Any) -> None:
    """Refuse what makes no sense, before anything is built."""
    check_ranges(cfg, RANGES)
    if not cfg.latents:
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


def latents_of(cfg: Any, words: Callable[[], nn.Module]) -> Latents | None:
    """The latents that `cfg` names, made of targets that what `words` makes reads; None without any."""
    check_latents(cfg)
    if not cfg.latents:
        return None
    size, state = size_of(cfg), LatentState(cfg.latents_dim)
    longest, one_norm = cfg.max_target_positions + BOS, not cfg.latents_penalty
    how = LatentTraining(
        weight=cfg.latents_loss,
        start=cfg.latents_start,
        drop=cfg.latents_drop,
        hide=cfg.latents_hide,
        noise=cfg.latents_noise,
        penalty=cfg.latents_penalty,
        contrast=cfg.latents_contrast,
    )
    return Latents(
        encoder=TargetEncoder(words(), size, cfg.latents_layers, cfg.latents, state.dim, longest, one_norm),
        denoiser=Denoiser(state, size, cfg.latents_layers, cfg.latents),
        state=state,
        schedule=Schedule(str(cfg.latents_schedule), "factor_vp", cfg.latents_noise_factor),
        prediction=PREDICTIONS[str(cfg.latents_prediction)],
        objective=Objective(cfg.latents_objective),
        training=how,
        source_drop=cfg.latents_source_drop,
        seed=cfg.seed,
    )
