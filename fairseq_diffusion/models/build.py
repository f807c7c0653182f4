"""From flags to parts."""

from __future__ import annotations

from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.config import DiffusionConfig, NetworkConfig
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder, SharedWords, own_words
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.objective.objective import Objective, parse_terms
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.translators.diffusion import Translator

BOS = 1  # the model puts a <s> before every sentence
UNIT_VARIANCE = ("l2", "layer")  # embedding norms
FACTORED = ("factor", "factor_vp")  # schedule modifiers that read the noise factor
PARTS = {"encoder": "encoder", "embeddings": "state", "denoiser": "denoiser", "length": "length"}  # that can be frozen


def check_network(cfg: NetworkConfig) -> None:
    """Refuse what makes no sense with any kind of model, before anything is built."""
    if cfg.hidden % cfg.heads:
        raise UserError(f"--hidden {cfg.hidden} does not divide into --heads {cfg.heads}; choose a divisor")
    if cfg.encoder_layers < 1 or cfg.decoder_layers < 1:
        raise UserError(
            f"--encoder-layers is {cfg.encoder_layers} and --decoder-layers {cfg.decoder_layers}; 1 or more of each "
            "are needed"
        )
    if not 0 <= cfg.label_smoothing < 1:
        raise UserError(f"--label-smoothing is {cfg.label_smoothing}; pass a share from 0 to below 1, usually 0.1")


def check(cfg: DiffusionConfig) -> None:
    """Refuse what makes no sense with a Gaussian model."""
    check_network(cfg)
    if cfg.schedule_update < 1:
        raise UserError(f"--schedule-update is {cfg.schedule_update}; the schedule adapts every 1 or more updates")
    if not 0 <= cfg.self_conditioning_p <= 1:
        raise UserError(f"--self-conditioning-p is {cfg.self_conditioning_p}, but a probability is between 0 and 1")
    if not 0 <= cfg.source_drop < 1:
        raise UserError(f"--source-drop is {cfg.source_drop}; a probability of 0 or more, below 1, is needed")
    check_schedule(cfg)
    weights = parse_terms(cfg.objective)
    if weights.get("rounding", 0) <= 0 and weights.get("anchor", 0) <= 0:
        raise UserError(
            f"nothing in --objective {cfg.objective} keeps the embeddings apart, so they would all become one; "
            "add rounding=1 or anchor=1"
        )
    if cfg.length_loss <= 0 and cfg.length_training != "off":
        raise UserError(
            f"--length-loss is {cfg.length_loss}, which would leave the length predictor untrained; "
            "pass a positive weight, or --length-training off"
        )


def parse_freeze(text: str) -> list[str]:
    """ "encoder,embeddings" -> ["encoder", "embeddings"]."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--freeze names {unknown[0]!r}, which is no part of a model; choose from: {', '.join(PARTS)}")
    return parts


def check_schedule(cfg: DiffusionConfig) -> None:
    """The modifier can do what is asked with these embeddings, this factor and this prediction."""
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
    if cfg.diffusion_steps < 0 or cfg.diffusion_steps == 1:
        raise UserError(f"--diffusion-steps is {cfg.diffusion_steps}; pass 2 or more, or 0 for continuous time")


def check_joined(source: Any, target: Any) -> None:
    """Both fairseq dictionaries are one, so that a word has the same number on both sides; a mask symbol behind the
    target's words is no word of the data."""
    words = target.symbols[: getattr(target, "mask_index", None)]
    if source.symbols != words:
        raise UserError(
            f"--share-embeddings needs one dictionary for both sides, but the source's {len(source)} and the target's "
            f"{len(words)} entries are not the same; binarise with fairseq-preprocess --joined-dictionary"
        )


def size_of(cfg: NetworkConfig) -> Size:
    return Size(cfg.hidden, cfg.inner, cfg.heads, cfg.dropout, str(cfg.activation), cfg.pre_norm)


def length_head(cfg: NetworkConfig) -> LengthHead:
    longest, target = cfg.max_target_positions + BOS, str(cfg.length_target)
    return LengthHead(cfg.hidden, cfg.length_classes, target, cfg.length_grad, longest, str(cfg.length_map))


def build_translator(cfg: DiffusionConfig, source_words: int, target_words: int) -> Translator:
    """The parts that `cfg` names, for dictionaries of the given sizes."""
    check(cfg)
    size = size_of(cfg)
    state = EmbeddingState(target_words, cfg.latent_dim, str(cfg.embedding_norm), cfg.embedding_init_std)
    words = SharedWords(state, cfg.hidden) if cfg.share_embeddings else own_words(source_words, cfg.hidden)
    return Translator(
        encoder=Encoder(words, size, cfg.encoder_layers, cfg.max_source_positions + BOS),
        denoiser=Denoiser(
            cfg.latent_dim,
            size,
            cfg.decoder_layers,
            cfg.max_target_positions + BOS,
            cfg.self_conditioning != "none",
            str(cfg.latent_map),
            str(cfg.time_features),
        ),
        state=state,
        schedule=Schedule(str(cfg.schedule), str(cfg.schedule_modifier), cfg.noise_factor, cfg.diffusion_steps),
        length=length_head(cfg),
        prediction=PREDICTIONS[str(cfg.prediction)],
        objective=Objective(cfg.objective, str(cfg.loss_normaliser)),
        time_sampler=TIME_SAMPLERS[str(cfg.time_sampler)],
        self_conditioning=str(cfg.self_conditioning),
        label_smoothing=cfg.label_smoothing,
        source_drop=cfg.source_drop,
    )
