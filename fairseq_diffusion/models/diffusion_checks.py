"""What makes no sense among the flags of a diffusion model, refused before anything is built."""

from __future__ import annotations

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import RANGES, check_network
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.models.vector_checks import check_absorption, check_expected, check_schedule, check_vectors
from fairseq_diffusion.objective.terms import FAMILIES, TERMS, parse_terms
from fairseq_diffusion.ranges import check_ranges
from fairseq_diffusion.states.base import STATES

OF_VECTORS = (
    "latent_dim",
    "embedding_norm",
    "embedding_init_std",
    "latent_map",
    "soft_absorb",
    "embedding_noise",
    "own_readout",
    "canvas_blanks",
    "word_time_spread",
)  # flags that words have no use for
OF_WORDS = ("mask_share", "unroll", "hide_masked")
FOR_WORDS = ("none", "factor_vp", "spindle")  # schedule modifiers that keep alpha^2 + sigma^2 = 1, look at no vectors
BY_WORDS = ("elbo", "corrupted", "anchor")  # loss terms that words may have levels of their own with
PARTS = {"encoder": "encoder", "embeddings": "state", "denoiser": "denoiser", "length": "length"}  # that can be frozen


def check(cfg: DiffusionConfig) -> None:
    """Refuse what makes no sense with a diffusion model."""
    check_network(cfg)
    if cfg.schedule_update < 1:
        raise UserError(f"--schedule-update is {cfg.schedule_update}; the schedule adapts every 1 or more updates")
    if not 0 <= cfg.self_conditioning_probability <= 1:
        raise UserError(
            f"--self-conditioning-probability is {cfg.self_conditioning_probability}, but a probability is between 0 "
            "and 1"
        )
    check_gap(cfg)
    check_times(cfg)
    check_absorption(cfg)
    if not 0 <= cfg.source_drop < 1:
        raise UserError(f"--source-drop is {cfg.source_drop}; a probability of 0 or more, below 1, is needed")
    if cfg.time_conditioning == "norm" and cfg.time_features == "none":
        raise UserError(
            "--time-conditioning norm needs a time to follow, but --time-features is none; pass --time-features "
            "fourier or sinusoid"
        )
    check_schedule(cfg)
    check_state(cfg)
    check_expected(cfg)
    if STATES[str(cfg.state)].family == "gaussian":
        check_vectors(cfg, frozen="embeddings" in parse_freeze(cfg.freeze))
    check_canvas(cfg)
    if cfg.length_loss <= 0 and cfg.length_training != "off" and cfg.length_target != "canvas":
        raise UserError(
            f"--length-loss is {cfg.length_loss}, which would leave the length predictor untrained; "
            "pass a positive weight, or --length-training off"
        )
    check_ranges(cfg, RANGES)


def check_times(cfg: DiffusionConfig) -> None:
    """Refuse log-odds that are not drawn."""
    if cfg.time_spread <= 0:
        raise UserError(f"--time-spread is {cfg.time_spread}; a standard deviation above 0 is needed, for example 1")
    bounds = {"elbo", "vlb", "score_entropy", "snr_mse"} & parse_terms(cfg.objective).keys()
    if cfg.time_sampler == "logit_normal" and bounds:
        raise UserError(
            f"--objective {min(bounds)} is a bound as a mean over even times, which those of --time-sampler "
            "logit_normal are not; pass uniform, stratified or second_moment"
        )
    for name in ("time_mean", "time_spread"):
        if cfg.time_sampler != "logit_normal" and getattr(cfg, name) != getattr(DiffusionConfig, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} {getattr(cfg, name)} is for --time-sampler logit_normal, but it is {cfg.time_sampler}; drop it"
            )


def check_gap(cfg: DiffusionConfig) -> None:
    """Refuse a gap between two passes where there are not two, or where both have a loss by one level of noise."""
    gap, gaussian = cfg.self_conditioning_gap, STATES[str(cfg.state)].family == "gaussian"
    if not gap:
        return
    if not 0 < gap < 1:
        raise UserError(f"--self-conditioning-gap is {gap}; pass a difference of times, from 0 to below 1")
    if cfg.self_conditioning not in (("random", "both") if gaussian else ("random",)):
        raise UserError(
            f"--self-conditioning-gap {gap} is for a first pass, but --self-conditioning is {cfg.self_conditioning}; "
            "pass --self-conditioning random, or drop it"
        )


def check_canvas(cfg: DiffusionConfig) -> None:
    """Refuse flags that do not go with whether a length is predicted."""
    if not 0 <= cfg.canvas_blanks < 1:
        raise UserError(
            f"--canvas-blanks is {cfg.canvas_blanks}; pass a probability from 0 to below 1, for example 0.1"
        )
    if cfg.canvas_blanks and cfg.schedule_modifier == "position":
        raise UserError(
            f"--canvas-blanks {cfg.canvas_blanks} moves words to other places, but --schedule-modifier position fits "
            "each place to its words; drop one"
        )
    if cfg.length_target == "canvas":
        if cfg.canvas_positions < 0 or cfg.canvas_scale < 0 or not (cfg.canvas_positions or cfg.canvas_scale):
            raise UserError(
                f"--canvas-positions is {cfg.canvas_positions} and --canvas-scale {cfg.canvas_scale}; pass numbers of "
                "0 or more, one of them above 0"
            )
        if cfg.canvas_positions > cfg.max_target_positions:
            raise UserError(
                f"--canvas-positions is {cfg.canvas_positions}, but --max-target-positions {cfg.max_target_positions}; "
                "lower the one or raise the other"
            )
        if cfg.length_training == "only" or "length" in parse_freeze(cfg.freeze):
            raise UserError(
                "--length-target canvas predicts no length, so there is nothing for --length-training only and "
                "--freeze length; drop them, or pass another --length-target"
            )
        return
    for name in ("canvas_positions", "canvas_scale", "canvas_blanks"):
        if getattr(cfg, name) != getattr(DiffusionConfig, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} {getattr(cfg, name)} has no meaning with --length-target {cfg.length_target}; drop it"
            )


def check_state(cfg: DiffusionConfig) -> None:
    """Refuse what does not go with what is corrupted."""
    state, family = str(cfg.state), STATES[str(cfg.state)].family
    if not 0 <= cfg.mask_share <= 1:
        raise UserError(f"--mask-share is {cfg.mask_share}; pass a share from 0 (no mask symbol) to 1 (no other noise)")
    for name in OF_VECTORS if family == "categorical" else OF_WORDS if family == "gaussian" else ():
        if getattr(cfg, name) != getattr(DiffusionConfig, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {getattr(cfg, name)} has no meaning with --state {state}; drop it")
    if cfg.hide_masked and cfg.conditioning == "prefix":
        raise UserError(
            "--hide-masked is for a target that attends to its source; with --conditioning prefix, where both are one "
            "stack, drop it"
        )
    if cfg.hide_masked and not cfg.mask_share:
        raise UserError("--hide-masked has no meaning with --mask-share 0, where there is no mask symbol; drop it")
    check_terms(cfg, family)
    check_unrolling(cfg, family)
    check_spindle(cfg, family)
    if family != "gaussian" and cfg.prediction != "x_0":
        raise UserError(f"--prediction {cfg.prediction} is for gaussian states; with --state {state} pass x_0")
    if family != "gaussian" and str(cfg.schedule_modifier) not in FOR_WORDS:
        raise UserError(
            f"--schedule-modifier {cfg.schedule_modifier} is for gaussian states; with --state {state} pass one of: "
            f"{', '.join(FOR_WORDS)}"
        )


def check_terms(cfg: DiffusionConfig, family: str) -> None:
    """Refuse loss terms that do not go with what is corrupted, and how."""
    for name in parse_terms(cfg.objective):
        if FAMILIES.get(name, family) != family:
            able = ", ".join(other for other in TERMS if FAMILIES.get(other, family) == family)
            raise UserError(
                f"--objective {name} is for {FAMILIES[name]} states, but those of --state {cfg.state} are {family}; "
                f"choose from: {able}"
            )
        if name == "elbo" and cfg.mask_share != 1:
            raise UserError(
                "--objective elbo is the bound where words are only ever hidden, but --mask-share is "
                f"{cfg.mask_share}; pass --objective vlb, or --mask-share 1"
            )
        if name == "score_entropy" and cfg.diffusion_steps:
            raise UserError(
                f"--objective score_entropy is for continuous time, but --diffusion-steps is {cfg.diffusion_steps}; "
                "pass --diffusion-steps 0, or --objective vlb"
            )
    if cfg.label_smoothing and (bounds := {"vlb", "score_entropy"} & parse_terms(cfg.objective).keys()):
        raise UserError(
            f"--objective {min(bounds)} knows no --label-smoothing, which is {cfg.label_smoothing}; drop one"
        )


def check_spindle(cfg: DiffusionConfig, family: str) -> None:
    """Refuse what words whose levels are their own do not go with."""
    if cfg.schedule_modifier != "spindle":
        return
    if family != "categorical" or cfg.mask_share != 1:
        raise UserError(
            "--schedule-modifier spindle says when words are hidden; pass --state tokens --mask-share 1, or another "
            "modifier"
        )
    for name in parse_terms(cfg.objective):
        if name not in BY_WORDS:
            raise UserError(
                f"--objective {name} takes all words to have one level of noise, but --schedule-modifier spindle gives "
                f"each its own; choose from: {', '.join(BY_WORDS)}"
            )


def check_unrolling(cfg: DiffusionConfig, family: str) -> None:
    """Refuse losses and conditions that a second pass on drawn words has no meaning for."""
    if cfg.unroll < 1:
        raise UserError(f"--unroll is {cfg.unroll}; a training step has 1 pass or more")
    if cfg.unroll > 1 and (family != "categorical" or list(parse_terms(cfg.objective)) != ["anchor"]):
        raise UserError(
            f"--unroll {cfg.unroll} draws words and has a loss on all of them; pass --state tokens --objective anchor"
        )
    if cfg.unroll > 1 and cfg.self_conditioning != "none":
        raise UserError(f"--unroll {cfg.unroll} does not go with --self-conditioning; pass --self-conditioning none")


def parse_freeze(text: str) -> list[str]:
    """ "encoder,embeddings" -> ["encoder", "embeddings"]."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--freeze names {unknown[0]!r}, which is no part of a model; choose from: {', '.join(PARTS)}")
    return parts
