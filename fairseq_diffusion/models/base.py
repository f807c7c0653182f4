"""What all registered models have in common: fairseq's batches in, losses out, and presets as architectures."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from typing import Any, ClassVar

import torch.nn.functional as F
from fairseq.models import ARCH_CONFIG_REGISTRY, BaseFairseqModel, register_model_architecture
from omegaconf import OmegaConf, open_dict
from torch import Tensor, nn

import fairseq_diffusion.systems  # noqa: F401  enters the presets
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.systems.presets import PRESETS

VALIDATION = -1  # stands for the update number in validation's noise keys


class ParallelModel(BaseFairseqModel):
    """A model that writes all positions of a translation at once, around a translator made of parts."""

    kind: ClassVar[str]
    needs_mask: ClassVar[bool] = False  # the target dictionary gets a mask symbol before the model is built

    def __init__(self, cfg: Any, translator: nn.Module, bos: int, pad: int):
        super().__init__()
        self.cfg, self.translator, self.bos, self.pad = cfg, translator, bos, pad
        self.num_updates = 0

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """fairseq's hub interface; the checkpoint names our task, which may not be registered yet."""
        fairseq_diffusion.load()
        return super().from_pretrained(*args, **kwargs)

    def set_num_updates(self, num_updates: int) -> None:
        """Called by fairseq before each training step."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    @property
    def moment(self) -> int:
        """What noise keys know of the time: the update, or that it is validation."""
        return self.num_updates if self.training else VALIDATION

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq-generate knows --fp16 only; --bf16 is ours."""
        super().prepare_for_inference_(cfg)
        if cfg.common.bf16:
            self.bfloat16()

    def with_bos(self, tokens: Tensor) -> Tensor:
        """[B, L] -> [B, L + 1]: both sides begin with <s>, which fairseq's data leave out.

        It may stand before left padding: positions count real tokens only.
        """
        return F.pad(tokens, (1, 0), value=self.bos)

    def encode(self, src_tokens: Tensor, *dropped: Tensor | None) -> Any:
        """src_tokens [B, S], padded on either side -> the encoded Source."""
        tokens = self.with_bos(src_tokens)
        return self.translator.encode(tokens, tokens.ne(self.pad), *dropped)

    def forward(
        self, src_tokens: Tensor, target: Tensor | None = None, ids: Tensor | None = None, **other: Any
    ) -> dict[str, Any]:
        """Losses of targets [B, L] given sources [B, S]; noise depends on (seed, update, sentence id) only."""
        if target is None or ids is None:
            raise UserError("this model computes its own losses: train with --criterion diffusion_loss")
        keys = noise.fold(ids, self.cfg.seed, self.moment)
        target = self.with_bos(target)
        mask = target.ne(self.pad)
        terms, weights, watched = self.losses(src_tokens, target, mask, keys)
        return {
            "loss": sum(weights[name] * share.sum() for name, share in terms.items() if weights[name]),
            "terms": {name: share.detach().sum() for name, share in terms.items()},
            **watched,
        }

    def losses(
        self, src_tokens: Tensor, target: Tensor, mask: Tensor, keys: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
        """Each term's shares [B] of the loss, the terms' weights, and what else the criterion takes: sample_size, means
        and state."""
        raise NotImplementedError

    def max_decoder_positions(self) -> int:
        """Asked by fairseq's own generator, which only another task builds."""
        raise UserError("this model does not write from left to right: decode it with --task diffusion_translation")

    def max_positions(self) -> tuple[int, int]:
        return self.cfg.max_source_positions, self.cfg.max_target_positions


def fill_up(cfg: Any, config: type) -> None:
    """Defaults for flags that are younger than a checkpoint's configuration: a new flag's default changes nothing."""
    missing = {field.name: field.default for field in fields(config) if not hasattr(cfg, field.name)}
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for name, value in missing.items():
            setattr(cfg, name, value)


def enter_architectures(model: str) -> None:
    """Register every preset of `model` as --arch; flags given on the command line win over the preset."""
    for name in PRESETS:
        if PRESETS[name].model == model and name not in ARCH_CONFIG_REGISTRY:
            register_model_architecture(model, name)(filler(PRESETS[name].fields))


def filler(preset: dict[str, Any]) -> Any:
    def fill(cfg: Any) -> None:
        for field, value in preset.items():
            setattr(cfg, field, getattr(cfg, field, value))

    return fill
