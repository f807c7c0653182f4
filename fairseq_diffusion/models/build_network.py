"""From flags to what every kind of model has."""

from __future__ import annotations

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.config import NetworkConfig
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import Size

BOS = 1  # the model puts a <s> before every sentence


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


def size_of(cfg: NetworkConfig) -> Size:
    return Size(cfg.hidden, cfg.inner, cfg.heads, cfg.dropout, str(cfg.activation), cfg.pre_norm)


def length_head(cfg: NetworkConfig) -> LengthHead:
    longest, target = cfg.max_target_positions + BOS, str(cfg.length_target)
    return LengthHead(cfg.hidden, cfg.length_classes, target, cfg.length_grad, longest, str(cfg.length_map))
