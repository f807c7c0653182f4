"""The registered model `glancing`: a OnePassTranslator, built from flags, that fairseq can train and save."""

from __future__ import annotations

from typing import Any

from fairseq.models import register_model

from fairseq_diffusion.alignment.base import ALIGNMENTS, Alignment, Symbols
from fairseq_diffusion.alignment.glancing import Glance
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import (
    BOS,
    RANGES,
    TranslatorModel,
    check_network,
    enter_architectures,
    length_head,
    size_of,
)
from fairseq_diffusion.models.latents import latents_of
from fairseq_diffusion.models.one_pass_config import OnePassConfig
from fairseq_diffusion.network.block_decoder import BlockDecoder
from fairseq_diffusion.network.canvas import FILLED
from fairseq_diffusion.network.encoder import Borrowed, Encoder, own_words
from fairseq_diffusion.network.links import Links
from fairseq_diffusion.network.source_copy import COPIES
from fairseq_diffusion.network.transformer import entry_scale
from fairseq_diffusion.objective.reduction import Reduction
from fairseq_diffusion.ranges import check_ranges
from fairseq_diffusion.translators.one_pass import OnePassTranslator


def check(cfg: OnePassConfig) -> None:
    """Refuse what makes no sense, before anything is built."""
    check_network(cfg)
    if cfg.length_target in FILLED:
        raise UserError(
            f"--length-target {cfg.length_target} fills what a target leaves with </s>, which one-pass models do not; "
            "pass difference, absolute or durations, or --alignment ctc or dag, where no length is predicted"
        )
    if cfg.blocks < 1 or cfg.decoder_layers % cfg.blocks:
        raise UserError(
            f"--blocks {cfg.blocks} does not cut --decoder-layers {cfg.decoder_layers} into equal parts; choose a "
            "divisor"
        )
    for name in ("glance_start", "glance_end"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(cfg, name)}, but a share is between 0 and 1")
    if cfg.glance_updates < 1:
        raise UserError(f"--glance-updates is {cfg.glance_updates}; the share needs 1 or more updates to change")
    if cfg.glance_count == "schedule" and cfg.keep_schedule == "none":
        raise UserError(
            "--glance-count schedule shows what --keep-schedule has, which is none; pass --keep-schedule linear or "
            "cosine"
        )
    if cfg.passes < 1:
        raise UserError(f"--passes is {cfg.passes}; a translation takes 1 pass or more")
    check_alignment(cfg)
    check_ranges(cfg, RANGES)


def check_alignment(cfg: OnePassConfig) -> None:
    """Refuse what does not go with the alignment."""
    alignment = ALIGNMENTS[str(cfg.alignment)]
    if not alignment.predicts_length and cfg.upsample < 1:
        raise UserError(
            f"--upsample is {cfg.upsample}, which makes a canvas shorter than the source; CTC is used with 2 or 3, a "
            "DAG with 4 to 8"
        )
    if cfg.glance_count == "uniform" and not (alignment.aligned or cfg.two_pass):
        raise UserError(
            f"--glance-count uniform shows words before the first block, and with --alignment {cfg.alignment} "
            "where they stand is not known before a first pass; add --two-pass, or choose --alignment length"
        )
    if cfg.label_smoothing and not alignment.aligned:
        raise UserError(
            f"--label-smoothing {cfg.label_smoothing} has no meaning for --alignment {cfg.alignment}, whose loss is a "
            "sum over alignments; pass --label-smoothing 0"
        )
    if alignment.predicts_length and cfg.length_loss <= 0:
        raise UserError(
            f"--length-loss is {cfg.length_loss}, which would leave the length predictor untrained; pass a positive "
            "weight"
        )


def make_alignment(cfg: OnePassConfig, symbols: Symbols, positions: int) -> Alignment:
    """The alignment, with the weights of its own that it needs."""
    own: dict[str, Any] = {
        "length": lambda: {"label_smoothing": cfg.label_smoothing},
        "ctc": lambda: {"reveal": str(cfg.reveal)},
        "dag": lambda: {"links": Links(cfg.hidden, cfg.heads, positions)},
    }
    name = str(cfg.alignment)
    return ALIGNMENTS[name](symbols, cfg.upsample, longest=cfg.max_target_positions, **own[name]())


def build_one_pass(cfg: OnePassConfig, source_words: int, target_words: int, symbols: Symbols) -> OnePassTranslator:
    """The parts that `cfg` names, for dictionaries of the given sizes; the target's ends with the mask."""
    check(cfg)
    size, sources = size_of(cfg), cfg.max_source_positions + BOS
    predicts_length = ALIGNMENTS[str(cfg.alignment)].predicts_length
    positions = cfg.max_target_positions + BOS if predicts_length else int(cfg.upsample * sources + 1e-9)
    words = own_words(target_words, cfg.hidden)
    seen = Borrowed(words) if cfg.share_embeddings else own_words(source_words, cfg.hidden)
    scale = entry_scale(cfg)
    glance = Glance(
        str(cfg.glance_count),
        str(cfg.glance_source),
        cfg.glance_start,
        cfg.glance_end,
        cfg.glance_updates,
        cfg.blocks,
        str(cfg.keep_schedule),
        cfg.two_pass,
    )
    return OnePassTranslator(
        encoder=Encoder(seen, size, cfg.encoder_layers, sources, scale, not cfg.no_encoder_norm),
        decoder=BlockDecoder(
            words, size, cfg.decoder_layers, cfg.blocks, positions, str(cfg.fuse), scale, not cfg.no_entry_norm
        ),
        alignment=make_alignment(cfg, symbols, positions),
        copy=COPIES[str(cfg.source_copy)](),
        glance=glance,
        length=length_head(cfg) if predicts_length else None,
        reduction=Reduction(str(cfg.loss_normaliser)),
        block_weights=str(cfg.block_weights),
        feed=str(cfg.feed),
        length_loss=cfg.length_loss,
        path_search=str(cfg.path_search),
        latents=latents_of(cfg, lambda: Borrowed(words)),
    )


@register_model("glancing", dataclass=OnePassConfig)
class OnePassModel(TranslatorModel):
    """Predicts all words in one pass, or in a few.  Registered under the name of its training technique, by which
    checkpoints know it."""

    Config = OnePassConfig
    build_translator = staticmethod(build_one_pass)

    @staticmethod
    def needs_mask(cfg: Any) -> bool:
        return True


enter_architectures("glancing")
