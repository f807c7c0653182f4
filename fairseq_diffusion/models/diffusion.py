"""The registered model `diffusion`: a DiffusionTranslator, built from flags, that fairseq can train and save."""

from __future__ import annotations

from typing import Any

from fairseq.models import register_model

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import BOS, TranslatorModel, check_network, enter_architectures, length_head, size_of
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder, SharedWords, own_words
from fairseq_diffusion.objective.terms import FAMILIES, TERMS, Objective, parse_terms
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.samplers.loop import sampler_for
from fairseq_diffusion.states.base import STATES
from fairseq_diffusion.translators.diffusion import DiffusionTranslator

OF_VECTORS = ("latent_dim", "embedding_norm", "embedding_init_std", "latent_map")  # flags that words have no use for
OF_WORDS = ("mask_share", "unroll", "hide_masked")
UNIT_VARIANCE = ("l2", "layer")  # embedding norms
FACTORED = ("factor", "factor_vp")  # schedule modifiers that read the noise factor
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
    if not 0 <= cfg.source_drop < 1:
        raise UserError(f"--source-drop is {cfg.source_drop}; a probability of 0 or more, below 1, is needed")
    if cfg.time_conditioning == "norm" and cfg.time_features == "none":
        raise UserError(
            "--time-conditioning norm needs a time to follow, but --time-features is none; pass --time-features "
            "fourier or sinusoid"
        )
    check_schedule(cfg)
    check_state(cfg)
    weights = parse_terms(cfg.objective)
    gaussian = STATES[str(cfg.state)].family == "gaussian"
    if gaussian and weights.get("rounding", 0) <= 0 and weights.get("anchor", 0) <= 0:
        raise UserError(
            f"nothing in --objective {cfg.objective} keeps the embeddings apart, so they would all become one; "
            "add rounding=1 or anchor=1"
        )
    if cfg.length_loss <= 0 and cfg.length_training != "off":
        raise UserError(
            f"--length-loss is {cfg.length_loss}, which would leave the length predictor untrained; "
            "pass a positive weight, or --length-training off"
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
    if cfg.time_min and modifier.startswith("clip"):
        raise UserError(f"--schedule-modifier {modifier} sets the smallest time itself; drop --time-min {cfg.time_min}")
    if not 0 <= cfg.time_min < 1:
        raise UserError(f"--time-min is {cfg.time_min}; pass the smallest time to train on, from 0 to below 1")
    if cfg.diffusion_steps < 0 or cfg.diffusion_steps == 1:
        raise UserError(f"--diffusion-steps is {cfg.diffusion_steps}; pass 2 or more, or 0 for continuous time")


def build_diffusion(cfg: Any, source_words: int, target_words: int, symbols: Symbols) -> DiffusionTranslator:
    """The parts that `cfg` names, for dictionaries of the given sizes; the target's ends with the mask where the state
    needs one."""
    check(cfg)
    size = size_of(cfg)
    state = STATES[str(cfg.state)].build(target_words, symbols, cfg)
    sampler_for(state, str(cfg.sampler))
    words = SharedWords(state, cfg.hidden) if cfg.share_embeddings else own_words(source_words, cfg.hidden)
    translator = DiffusionTranslator(
        encoder=Encoder(words, size, cfg.encoder_layers, cfg.max_source_positions + BOS),
        denoiser=Denoiser(
            state,
            size,
            cfg.decoder_layers,
            cfg.max_target_positions + BOS,
            cfg.self_conditioning != "none",
            str(cfg.time_features),
            str(cfg.time_activation),
            str(cfg.time_conditioning),
            symbols.mask if cfg.hide_masked else None,
        ),
        state=state,
        schedule=schedule_of(cfg),
        length=length_head(cfg),
        prediction=PREDICTIONS[str(cfg.prediction)],
        objective=Objective(cfg.objective, str(cfg.loss_normaliser)),
        time_sampler=TIME_SAMPLERS[str(cfg.time_sampler)](),
        self_conditioning=str(cfg.self_conditioning),
        self_conditioning_probability=cfg.self_conditioning_probability,
        label_smoothing=cfg.label_smoothing,
        source_drop=cfg.source_drop,
        length_loss=cfg.length_loss,
        length_training=str(cfg.length_training),
        adapt_every=cfg.schedule_update,
        unroll=cfg.unroll,
        seed=cfg.seed,
        special_ids=[number for number in (*symbols[:4], *symbols.tags) if number >= 0],
    )
    freeze(translator, str(cfg.length_training), parse_freeze(cfg.freeze))
    return translator


def schedule_of(cfg: Any) -> Schedule:
    return Schedule(str(cfg.schedule), str(cfg.schedule_modifier), cfg.noise_factor, cfg.diffusion_steps, cfg.time_min)


def freeze(translator: DiffusionTranslator, length_training: str, parts: list[str]) -> None:
    """Frozen parameters stay out of the optimiser, so that weight decay cannot shrink them either."""
    if length_training == "only":
        translator.requires_grad_(False)
    getattr(translator, PARTS["length"]).requires_grad_(length_training != "off")
    for part in parts:
        getattr(translator, PARTS[part]).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in translator.parameters()):
        raise UserError(
            f"--freeze {','.join(parts)} and --length-training {length_training} leave nothing to train; name fewer "
            "parts"
        )


@register_model("diffusion", dataclass=DiffusionConfig)
class DiffusionModel(TranslatorModel):
    """Denoises step by step."""

    Config = DiffusionConfig
    build_translator = staticmethod(build_diffusion)

    @staticmethod
    def needs_mask(cfg: Any) -> bool:
        return STATES[str(getattr(cfg, "state", DiffusionConfig.state))].needs_mask(cfg)


enter_architectures("diffusion")
