"""A small diffusion translator, of vectors or of words, with random weights, and sentences for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.models.diffusion import build_diffusion
from fairseq_diffusion.states.base import STATES
from fairseq_diffusion.translators.batch import Source
from fairseq_diffusion.translators.diffusion import DiffusionTranslator

BOS, PAD, EOS, UNK = range(4)
WORDS = 20
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(4, WORDS))]
DICTIONARY = SimpleNamespace(bos=lambda: BOS, pad=lambda: PAD, eos=lambda: EOS, symbols=SYMBOLS)
SMALL: dict[str, Any] = {
    "hidden": 16,
    "inner": 32,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "latent_dim": 6,
    "embedding_init_std": 1.0,
    "length_classes": 16,
    "max_source_positions": 40,
    "max_target_positions": 40,
    "seed": 1,
}
OF_WORDS = {"latent_dim": 16, "embedding_init_std": 1e-3, "sampler": "ancestral"}  # what words have no use for, unset
LENGTHS = (9, 2, 14, 5, 11, 3, 7)  # of sources, with their ends


class Model(nn.Module):
    """What the registered models are to a generator."""

    def __init__(self, translator: nn.Module):
        super().__init__()
        self.translator = translator


def build(**flags: Any) -> DiffusionTranslator:
    """The same for the same flags; its output layer does not begin at zero."""
    torch.manual_seed(1)
    small = SMALL if flags.get("state", "embedding") == "embedding" else {**SMALL, **OF_WORDS}
    cfg = DiffusionConfig(**{**small, **flags})
    hides = STATES[str(cfg.state)].needs_mask(cfg)
    symbols = Symbols(BOS, PAD, EOS, WORDS if hides else -1, UNK)
    translator = build_diffusion(cfg, WORDS, WORDS + hides, symbols)
    for parameter in translator.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return translator.eval()


def sources(lengths: tuple[int, ...] = LENGTHS, left: bool = False) -> Tensor:
    """Sentences of random words, padded on the right or on the `left`."""
    made, tokens = torch.Generator().manual_seed(5), torch.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(tokens, lengths):
        words = torch.cat([torch.randint(4, WORDS, (length - 1,), generator=made), torch.tensor([EOS])])
        row[-length:] = words
        if not left:
            row.copy_(row.roll(length))
    return tokens


def encode(translator: DiffusionTranslator, tokens: Tensor) -> Source:
    """Encoded sentences of `tokens` [S, T], which get a <s> first."""
    tokens = F.pad(tokens, (1, 0), value=BOS)
    return translator.encode(tokens, tokens.ne(PAD))
