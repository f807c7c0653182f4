"""From flags to parts."""

from __future__ import annotations

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.objective.objective import Objective, parse_terms
from fairseq_diffusion.process.embedding import EmbeddingState
from fairseq_diffusion.process.prediction import PREDICTIONS
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.translator import Translator

BOS = 1  # the model puts a <s> before every sentence


def check(cfg: DiffusionConfig) -> None:
    """Refuse what makes no sense, before anything is built."""
    if cfg.hidden % cfg.heads:
        raise UserError(f"--hidden {cfg.hidden} does not divide into --heads {cfg.heads}; choose a divisor")
    if cfg.schedule_update < 1:
        raise UserError(f"--schedule-update is {cfg.schedule_update}; the schedule adapts every 1 or more updates")
    if not 0 <= cfg.self_conditioning_p <= 1:
        raise UserError(f"--self-conditioning-p is {cfg.self_conditioning_p}, but a probability is between 0 and 1")
    if str(cfg.schedule_modifier).startswith("clip") and cfg.embedding_norm != "l2":
        raise UserError(
            f"--schedule-modifier {cfg.schedule_modifier} compares noise with the spread of embeddings of unit "
            f"variance, but --embedding-norm is {cfg.embedding_norm}; pass --embedding-norm l2 "
            "or --schedule-modifier none"
        )
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


def build_translator(cfg: DiffusionConfig, source_words: int, target_words: int) -> Translator:
    """The parts that `cfg` names, for dictionaries of the given sizes."""
    check(cfg)
    size = Size(cfg.hidden, cfg.inner, cfg.heads, cfg.dropout, str(cfg.activation), cfg.pre_norm)
    longest = cfg.max_target_positions + BOS
    return Translator(
        encoder=Encoder(source_words, size, cfg.encoder_layers, cfg.max_source_positions + BOS),
        denoiser=Denoiser(cfg.latent_dim, size, cfg.decoder_layers, longest, cfg.self_conditioning != "none"),
        state=EmbeddingState(target_words, cfg.latent_dim, str(cfg.embedding_norm), cfg.embedding_init_std),
        schedule=Schedule(str(cfg.schedule), str(cfg.schedule_modifier)),
        length=LengthHead(cfg.hidden, cfg.length_classes, str(cfg.length_target), cfg.length_grad, longest),
        prediction=PREDICTIONS[str(cfg.prediction)],
        objective=Objective(cfg.objective, str(cfg.loss_normaliser)),
        time_sampler=TIME_SAMPLERS[str(cfg.time_sampler)],
        self_conditioning=str(cfg.self_conditioning),
        label_smoothing=cfg.label_smoothing,
    )
