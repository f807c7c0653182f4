"""What makes no sense among the flags of a diffusion model of vectors: their noise, and what estimates of them mean."""

from __future__ import annotations

import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.objective.terms import parse_terms
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.prediction import EXPECTED

UNIT_VARIANCE = ("l2", "layer")  # embedding norms
FACTORED = ("factor", "factor_vp")  # schedule modifiers that read the noise factor
OF_BOUNDS = ("none", "factor_vp", "least_variance")  # schedule modifiers that leave a loss in nats what it is
OF_ESTIMATES = ("anchor", "mse", "v_mse", "snr_mse")  # loss terms that train the denoiser
KEEP_APART = ("rounding", "anchor", "reconstruction")  # loss terms without which all vectors would become one
LEAST_NOISE = 1e-4  # sigma at time 0, where a bound in nats ends


def check_vectors(cfg: DiffusionConfig, frozen: bool) -> None:
    """Refuse what does not go with vectors that are `frozen` or trained."""
    weights = parse_terms(cfg.objective)
    check_readout(cfg, weights, frozen)
    check_bound(cfg, weights)
    check_word_times(cfg)
    if not frozen and all(weights.get(name, 0) <= 0 for name in KEEP_APART):
        raise UserError(
            f"nothing in --objective {cfg.objective} keeps the embeddings apart, so they would all become one; "
            "add rounding=1 or anchor=1"
        )


def check_expected(cfg: DiffusionConfig) -> None:
    """Refuse what does not go with an estimate that says how probable words are, or with conditioning on words."""
    prediction, on = str(cfg.prediction), str(cfg.self_conditioning_on)
    if prediction == "posterior" and cfg.embedding_norm != "l2":
        raise UserError(
            "--prediction posterior is right where all vectors have one norm, but --embedding-norm is "
            f"{cfg.embedding_norm}; pass --embedding-norm l2, or --prediction expected"
        )
    weights = parse_terms(cfg.objective)
    if prediction in EXPECTED and all(weights.get(name, 0) <= 0 for name in OF_ESTIMATES):
        raise UserError(
            f"--prediction {prediction} says how probable words are, which nothing in --objective {cfg.objective} "
            "trains; add anchor=1"
        )
    if on == "estimate":
        return
    if cfg.self_conditioning == "none":
        raise UserError(f"--self-conditioning-on {on} has no meaning with --self-conditioning none; drop it")
    if prediction in EXPECTED:
        raise UserError(
            f"--prediction {prediction} conditions on the mean of the words' vectors; drop --self-conditioning-on {on}"
        )


def check_word_times(cfg: DiffusionConfig) -> None:
    """Refuse times of the words' own where something takes all words of a sentence to have one level."""
    spread = cfg.word_time_spread
    if not 0 <= spread <= 2:
        raise UserError(f"--word-time-spread is {spread}; pass the width of an interval of times, from 0 to 2")
    for wrong, what, other in (
        (cfg.prediction in ("v", "posterior"), f"--prediction {cfg.prediction}", "--prediction x_0 or expected"),
        (cfg.schedule_modifier == "position", "--schedule-modifier position", "another modifier"),
        ("snr_mse" in parse_terms(cfg.objective), "--objective snr_mse", "mse or anchor"),
    ):
        if spread and wrong:
            raise UserError(
                f"--word-time-spread {spread} gives each word a level of noise of its own, but {what} takes a sentence "
                f"to have one; pass {other}, or drop it"
            )


def check_readout(cfg: DiffusionConfig, weights: dict[str, float], frozen: bool) -> None:
    """Refuse a table that words are read by and no loss trains alone, and noise that is none."""
    if cfg.own_readout and weights.get("rounding", 0) <= 0:
        raise UserError(
            f"--own-readout learns by rounding, which --objective {cfg.objective} has not; add rounding=1, or drop it"
        )
    if cfg.own_readout and not frozen:
        raise UserError(
            "--own-readout leaves nothing that keeps the embeddings apart, so they would all become one; pass --freeze "
            "embeddings, or drop it"
        )


def check_absorption(cfg: DiffusionConfig) -> None:
    """Refuse what does not go with a vector that absorbs, or needs one."""
    if not 0 <= cfg.soft_absorb <= 1:
        raise UserError(f"--soft-absorb is {cfg.soft_absorb}; pass a probability from 0 (no vector that absorbs) to 1")
    if "center" in parse_terms(cfg.objective) and not cfg.soft_absorb:
        raise UserError(
            "--objective center is the norm of the vector that absorbs, which --soft-absorb 0 has not; drop it"
        )
    if cfg.soft_absorb and cfg.prediction in ("v", "posterior"):
        raise UserError(
            f"--prediction {cfg.prediction} takes noise to be around 0, but with --soft-absorb it is around a learned "
            "vector; pass --prediction x_0 or expected"
        )


def check_bound(cfg: DiffusionConfig, weights: dict[str, float]) -> None:
    """Refuse a bound in nats of what is no chain of Gaussian noise at unit variance that ends with some left."""
    if not (found := [name for name in ("snr_mse", "reconstruction") if name in weights]):
        return
    first = CURVES[str(cfg.schedule)].sigma(torch.zeros((), dtype=torch.float64))
    able = ", ".join(name for name in CURVES if CURVES[name].sigma(torch.zeros(())) > LEAST_NOISE)
    for wrong, what, other in (
        (first < LEAST_NOISE, f"--schedule {cfg.schedule} leaves no noise at time 0", f"--schedule, one of: {able}"),
        (cfg.diffusion_steps, f"--diffusion-steps is {cfg.diffusion_steps}", "--diffusion-steps 0"),
        (cfg.time_min, f"--time-min is {cfg.time_min}", "--time-min 0"),
        (cfg.embedding_noise, f"--embedding-noise is {cfg.embedding_noise}", "--embedding-noise 0"),
        (cfg.soft_absorb, f"--soft-absorb is {cfg.soft_absorb}", "--soft-absorb 0"),
        (
            str(cfg.schedule_modifier) not in OF_BOUNDS,
            f"--schedule-modifier is {cfg.schedule_modifier}",
            f"--schedule-modifier, one of: {', '.join(OF_BOUNDS)}",
        ),
        (cfg.embedding_norm != "l2", f"--embedding-norm is {cfg.embedding_norm}", "--embedding-norm l2"),
    ):
        if wrong:
            raise UserError(f"--objective {found[0]} is a part of a bound in nats, but {what}; pass {other}")


def check_schedule(cfg: DiffusionConfig) -> None:
    """Refuse a modifier that does not go with these embeddings, this factor or this prediction."""
    modifier, factor = str(cfg.schedule_modifier), cfg.noise_factor
    if modifier.startswith("clip") and cfg.embedding_norm not in UNIT_VARIANCE:
        raise UserError(
            f"--schedule-modifier {modifier} compares noise with the spread of embeddings of unit "
            f"variance, but --embedding-norm is {cfg.embedding_norm}; pass --embedding-norm l2 "
            "or --schedule-modifier none"
        )
    if factor <= 0:
        raise UserError(f"--noise-factor is {factor}, but noise is multiplied by a positive number, for example 4")
    if factor != 1 and modifier not in FACTORED:
        raise UserError(
            f"--noise-factor {factor} has no meaning for --schedule-modifier {modifier}; "
            f"pass --schedule-modifier {' or '.join(FACTORED)}, or drop it"
        )
    if factor != 1 and modifier == "factor" and cfg.prediction == "v":
        raise UserError(
            f"--prediction v needs states of unit variance, which --noise-factor {factor} does not leave; "
            "pass --schedule-modifier factor_vp, or --prediction x_0"
        )
    if cfg.time_min and modifier in ("clip", "clip_plus_one", "warp", "least_variance"):
        raise UserError(f"--schedule-modifier {modifier} sets the smallest time itself; drop --time-min {cfg.time_min}")
    if modifier == "position" and cfg.prediction in EXPECTED:
        raise UserError(
            "--schedule-modifier position adapts to the distance of x_0-hat from x_0, which --prediction "
            f"{cfg.prediction} does not make in training; pass --prediction x_0, or --schedule-modifier warp, which "
            "adapts to the loss"
        )
    if not 0 <= cfg.time_min < 1:
        raise UserError(f"--time-min is {cfg.time_min}; pass the smallest time to train on, from 0 to below 1")
    if cfg.diffusion_steps < 0 or cfg.diffusion_steps == 1:
        raise UserError(f"--diffusion-steps is {cfg.diffusion_steps}; pass 2 or more, or 0 for continuous time")
