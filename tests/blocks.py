"""A small one-pass translator, and sentences for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.models.one_pass import build_one_pass
from fairseq_diffusion.models.one_pass_config import OnePassConfig
from fairseq_diffusion.translators.batch import Lengths, Losses
from fairseq_diffusion.translators.one_pass import OnePassTranslator

BOS, PAD, EOS, UNK = range(4)
MASK = 20
SMALL: dict[str, Any] = {
    "hidden": 16,
    "inner": 32,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 4,
    "dropout": 0.0,
    "length_classes": 32,
    "upsample": 3.0,
    "glance_updates": 100,
    "max_source_positions": 40,
    "max_target_positions": 40,
}
SOURCE = torch.tensor([[BOS, 5, 6, 7, EOS, PAD, PAD], [BOS, 8, 9, 10, 11, 12, EOS], [BOS, 4, 4, EOS, PAD, PAD, PAD]])
TARGET = torch.tensor([[BOS, 5, 6, 7, 8, EOS], [BOS, 9, 9, 10, EOS, PAD], [BOS, 4, EOS, PAD, PAD, PAD]])
KEYS = torch.tensor([11, 12, 13])
ALIGNMENTS = ("length", "ctc", "dag")


def build(**flags: Any) -> OnePassTranslator:
    """A translator over 20 words and the mask; the same for the same flags."""
    cfg = OnePassConfig(**{**SMALL, **flags})
    torch.manual_seed(1)
    return build_one_pass(cfg, MASK, MASK + 1, Symbols(BOS, PAD, EOS, MASK))


def losses(model: OnePassTranslator, source: Tensor = SOURCE, target: Tensor = TARGET, update: int = 0) -> Losses:
    return model.losses(source, source.ne(PAD), target, target.ne(PAD), KEYS[: len(source)], update)


def lengths_of(positions: Tensor) -> Lengths:
    """These lengths [S, l], all as probable."""
    return Lengths(positions, torch.zeros_like(positions, dtype=torch.float), int(positions.max()))
