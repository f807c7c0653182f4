"""What all registered models have in common: fairseq's batches in, losses out; parts that all have; and presets as
architectures."""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from fairseq.models import ARCH_CONFIG_REGISTRY, BaseFairseqModel, register_model_architecture
from torch import Tensor

import fairseq_diffusion.systems  # noqa: F401  enters the presets
from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.compat.renamed import fill_up, rename_keys
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.models.config import NetworkConfig
from fairseq_diffusion.models.contrast import contrast_of
from fairseq_diffusion.network.durations import DurationHead
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import Size
from fairseq_diffusion.ranges import COUNT, KEPT, SIZE, WEIGHT, check_ranges
from fairseq_diffusion.systems.presets import PRESETS
from fairseq_diffusion.translators.base import Translator
from fairseq_diffusion.translators.batch import Losses
from fairseq_diffusion.translators.chain import VALIDATION

BOS = 1  # the model puts a <s> before every sentence
SIZES = dict.fromkeys(
    ("hidden", "inner", "heads", "latent_dim", "length_classes", "max_source_positions", "max_target_positions"), SIZE
)
RANGES = {  # looked at last, for other checks say more
    **dict.fromkeys(("encoder_layers", "decoder_layers", "unroll", "passes"), (0, 1000)),
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), KEPT),
    **dict.fromkeys(
        ("length_loss", "embedding_init_std", "embedding_noise", "noise_factor", "decode_noise_factor"), WEIGHT
    ),
    **dict.fromkeys(("upsample", "canvas_scale"), (0, 1000)),
    "duration_classes": (2, 1000),
    **dict.fromkeys(("time_mean", "time_spread"), (-5, 5)),
    "early_stop": (0, 1),
    "diffusion_steps": COUNT,
    "seed": (-(2**63), 2**63 - 1),
}

logger = logging.getLogger(__name__)


class TranslatorModel(BaseFairseqModel):
    """Base class of the registered models.  Wraps a `Translator`, and converts fairseq's batches to its arguments."""

    Config: ClassVar[type[NetworkConfig]]

    def __init__(self, cfg: Any, translator: Translator, bos: int, pad: int):
        super().__init__()
        self.cfg, self.translator, self.bos, self.pad = cfg, translator, bos, pad
        self.num_updates = 0

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> TranslatorModel:
        fill_up(cfg, cls.Config)
        source, target = task.source_dictionary, task.target_dictionary
        if cfg.share_embeddings:
            check_joined(source, target)
        mask = len(target) - 1 if cls.needs_mask(cfg) else -1
        tags = tags_of(cfg.tags, source, target)
        symbols = Symbols(target.bos(), target.pad(), target.eos(), mask, target.unk(), tags)
        translator = cls.build_translator(cfg, len(source), len(target), symbols)
        translator.contrast = contrast_of(cfg)
        special = [number for number in (*symbols[:4], *tags) if number >= 0]
        translator.count_words(torch.tensor(target.count).index_fill(0, torch.tensor(special), -1))
        return cls(cfg, translator, target.bos(), target.pad())

    @staticmethod
    @abstractmethod
    def needs_mask(cfg: Any) -> bool:
        """Whether the target dictionary gets a mask symbol, as its last entry, before the model is built."""

    @staticmethod
    @abstractmethod
    def build_translator(cfg: Any, source_words: int, target_words: int, symbols: Symbols) -> Translator:
        """The parts that `cfg` names, for dictionaries of the given sizes."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """fairseq's hub interface; the checkpoint names our task, which may not be registered yet."""
        fairseq_diffusion.load()
        return super().from_pretrained(*args, **kwargs)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Weights of older checkpoints get the names they have now.  torch would round weights to zeros and ones where
        a file has whole numbers."""
        super().upgrade_state_dict_named(state_dict, name)
        rename_keys(state_dict)
        own = self.state_dict()
        for key, value in state_dict.items():
            if key in own and torch.is_tensor(value) and value.is_floating_point() != own[key].is_floating_point():
                kinds = (str(x.dtype).removeprefix("torch.") for x in (value, own[key]))
                raise UserError(
                    "the checkpoint's {} holds numbers of the type {} in place of {}; it is damaged: take an earlier "
                    "one".format(key, *kinds)
                )

    def set_num_updates(self, num_updates: int) -> None:
        """Called by fairseq before each training step."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates
        if self.training:
            self.translator.adapt(num_updates)

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq-generate knows --fp16 only; --bf16 is ours."""
        super().prepare_for_inference_(cfg)
        if cfg.common.bf16:
            self.bfloat16()

    def forward(
        self,
        src_tokens: Tensor,
        target: Tensor | None = None,
        ids: Tensor | None = None,
        durations: Tensor | None = None,
        **other: Any,
    ) -> Losses:
        """Losses of targets [B, L] given sources [B, S], padded on either side; noise depends on (seed, update,
        sentence id) only, but for what a time sampler has learnt.  `durations` [B, S + 1] are of <s> and the source's
        tokens."""
        if target is None or ids is None:
            raise UserError("this model computes its own losses: train with --criterion diffusion_loss")
        keys = noise.fold(ids, self.cfg.seed, self.num_updates if self.training else VALIDATION)
        source, target = self._with_bos(src_tokens), self._with_bos(target)
        batch = source, source.ne(self.pad), target, target.ne(self.pad)
        more = {} if durations is None else {"durations": durations}  # which a user's own translator need not take
        return self.translator.losses(*batch, keys, self.num_updates, **more)

    def _with_bos(self, tokens: Tensor) -> Tensor:
        """[B, L] -> [B, L + 1]: both sides begin with <s>, which fairseq's data leave out.

        It may stand before left padding: positions count real tokens only.
        """
        return F.pad(tokens, (1, 0), value=self.bos)

    def max_decoder_positions(self) -> int:
        """Asked by fairseq's own generator, which only another task builds."""
        raise UserError("this model does not decode from left to right: pass --task diffusion_translation")

    def max_positions(self) -> tuple[int, int]:
        return self.cfg.max_source_positions, self.cfg.max_target_positions


def check_joined(source: Any, target: Any) -> None:
    """Both fairseq dictionaries are one, so that a word has the same number on both sides; a mask symbol behind the
    target's words is no word of the data."""
    words = target.symbols[: getattr(target, "mask_index", None)]
    if source.symbols != words:
        raise UserError(
            f"--share-embeddings needs one dictionary for both sides, but the source's {len(source)} and the target's "
            f"{len(words)} entries are not the same; binarise with fairseq-preprocess --joined-dictionary"
        )


def tags_of(text: str, source: Any, target: Any) -> tuple[int, ...]:
    """Numbers in the target dictionary of the tags that `text` names, as in "<2de>,<2fr>"; in a name * stands for any
    characters.  A tag that the source's dictionary alone has needs no number: no translation can have it."""
    found: dict[str, int] = {}
    entries = target.symbols[: getattr(target, "mask_index", None)]  # a mask symbol is none of the data's
    words = {word: number for number, word in enumerate(entries) if number >= target.nspecial}
    for name in filter(None, (part.strip() for part in text.split(","))):
        pattern = re.compile(".*".join(map(re.escape, name.split("*"))))
        here = {word: number for word, number in words.items() if pattern.fullmatch(word)}
        if not here and "*" not in name and source.index(name) == source.unk():
            raise UserError(
                f"--tags names {name}, which is in neither dictionary of this data; name tags as they stand in "
                "front of the sources, behind BPE, or leave it out"
            )
        found |= here
    if found:
        logger.info(f"tags, which are never part of a translation: {', '.join(found)}")
    return tuple(found.values())


def check_network(cfg: NetworkConfig) -> None:
    """Refuse what makes no sense with any kind of model, before anything is built."""
    check_ranges(cfg, SIZES)
    if cfg.hidden % cfg.heads:
        raise UserError(f"--hidden {cfg.hidden} does not divide into --heads {cfg.heads}; choose a divisor")
    one_stack = getattr(cfg, "conditioning", "attention") == "prefix"
    if cfg.encoder_layers < (0 if one_stack else 1) or cfg.decoder_layers < 1:
        raise UserError(
            f"--encoder-layers is {cfg.encoder_layers} and --decoder-layers {cfg.decoder_layers}; 1 or more of each "
            "are needed, but for an encoder with --conditioning prefix"
        )
    if cfg.length_target != "durations" and cfg.duration_classes != NetworkConfig.duration_classes:
        raise UserError(
            f"--duration-classes {cfg.duration_classes} has no meaning with --length-target {cfg.length_target}; drop "
            "it, or pass --length-target durations"
        )
    if not 0 <= cfg.label_smoothing < 1:
        raise UserError(f"--label-smoothing is {cfg.label_smoothing}; pass a share from 0 to below 1, usually 0.1")


def size_of(cfg: NetworkConfig) -> Size:
    inside = (cfg.dropout if own is None else own for own in (cfg.attention_dropout, cfg.activation_dropout))
    return Size(cfg.hidden, cfg.inner, cfg.heads, cfg.dropout, str(cfg.activation), cfg.pre_norm, *inside)


def length_head(cfg: NetworkConfig) -> LengthHead | None:
    """None where no length is predicted."""
    if cfg.length_target == "canvas":
        return None
    longest, target = cfg.max_target_positions + BOS, str(cfg.length_target)
    how = cfg.length_grad, longest, str(cfg.length_map)
    if target == "durations":
        return DurationHead(cfg.hidden, cfg.duration_classes, *how)
    return LengthHead(cfg.hidden, cfg.length_classes, target, *how)


def enter_architectures(model: str) -> None:
    """Register every preset of `model` as --arch; flags given on the command line win over the preset."""
    for name in PRESETS:
        if PRESETS[name].model == model and name not in ARCH_CONFIG_REGISTRY:
            register_model_architecture(model, name)(partial(fill_in, PRESETS[name].fields))


def fill_in(preset: dict[str, Any], cfg: Any) -> None:
    for field, value in preset.items():
        setattr(cfg, field, getattr(cfg, field, value))
