"""The registered model: a Translator that fairseq can build, train and save."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models import ARCH_CONFIG_REGISTRY, BaseFairseqModel, register_model, register_model_architecture
from omegaconf import OmegaConf, open_dict
from torch import Tensor

import fairseq_diffusion.systems  # noqa: F401  enters the presets
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.build import build_translator, check_joined
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.presets import PRESETS
from fairseq_diffusion.process import noise
from fairseq_diffusion.process.time_sampling import coin
from fairseq_diffusion.translator import Losses, Source, Translator

VALIDATION = -1  # stands for the update number in validation's noise keys


@register_model("diffusion", dataclass=DiffusionConfig)
class DiffusionModel(BaseFairseqModel):
    """Turns fairseq's batches into the translator's arguments, and keeps its schedule up to date."""

    def __init__(self, cfg: DiffusionConfig, translator: Translator, bos: int, pad: int):
        super().__init__()
        self.cfg, self.translator, self.bos, self.pad = cfg, translator, bos, pad
        self.num_updates = 0
        self._adapted_at = -1  # --update-freq announces the same update several times
        self._freeze(str(cfg.length_training))

    @classmethod
    def build_model(cls, cfg: DiffusionConfig, task: Any) -> DiffusionModel:
        fill_up(cfg)
        source, target = task.source_dictionary, task.target_dictionary
        if cfg.share_embeddings:
            check_joined(source, target)
        return cls(cfg, build_translator(cfg, len(source), len(target)), target.bos(), target.pad())

    def _freeze(self, length_training: str) -> None:
        """Frozen parameters stay out of the optimiser, so that weight decay cannot shrink them either."""
        if length_training == "only":
            self.translator.requires_grad_(False)
        self.translator.length.requires_grad_(length_training != "off")

    def set_num_updates(self, num_updates: int) -> None:
        """Called by fairseq before each training step: adapt the schedule to the embeddings when it is due."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates
        due = num_updates % self.cfg.schedule_update == 0 and num_updates != self._adapted_at
        if self.training and due:
            self.translator.schedule.update(self.translator.state.table().detach())
            self._adapted_at = num_updates

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Other embeddings: what was adapted to the old ones at this update is to be done again."""
        self._adapted_at = -1
        return super().load_state_dict(*args, **kwargs)

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

    def encode(self, src_tokens: Tensor, dropped: Tensor | None = None) -> Source:
        """src_tokens [B, S], padded on either side, `dropped` [B] out of the denoiser's sight -> the encoded Source."""
        tokens = self.with_bos(src_tokens)
        return self.translator.encode(tokens, tokens.ne(self.pad), dropped)

    def forward(
        self, src_tokens: Tensor, target: Tensor | None = None, ids: Tensor | None = None, **other: Any
    ) -> dict[str, Any]:
        """Losses of targets [B, L] given sources [B, S]; noise depends on (seed, update, sentence id) only."""
        if target is None or ids is None:
            raise UserError("a diffusion model computes its own losses: train with --criterion diffusion_loss")
        moment = self.num_updates if self.training else VALIDATION
        keys = noise.fold(ids, self.cfg.seed, moment)
        target = self.with_bos(target)
        mask = target.ne(self.pad)
        source = self.encode(src_tokens, self.translator.dropped(keys))
        if self.cfg.length_training == "only":
            losses = self.translator.length_losses(source, mask)
        else:
            p = self.cfg.self_conditioning_p if self.training else 1.0
            recondition = coin(noise.fold(torch.tensor(self.cfg.seed), moment), p)
            losses = self.translator.losses(source, target, mask, keys, recondition)
        return {
            "loss": self._weigh(losses),
            "sample_size": self.translator.objective.sample_size(mask),
            "terms": {name: share.detach().sum() for name, share in losses.terms.items()},
            "state": dict(self.translator.schedule.modifier.named_buffers()),
            "losses": losses,
        }

    def _weigh(self, losses: Losses) -> Tensor:
        length = 0.0 if self.cfg.length_training == "off" else self.cfg.length_loss
        weights = {**self.translator.objective.weights, "length": length}
        return sum(weights[name] * share.sum() for name, share in losses.terms.items() if weights[name])

    def max_decoder_positions(self) -> int:
        """Asked by fairseq's own generator, which only another task builds."""
        raise UserError("this is a diffusion model: decode it with --task diffusion_translation")

    def max_positions(self) -> tuple[int, int]:
        return self.cfg.max_source_positions, self.cfg.max_target_positions


def fill_up(cfg: Any) -> None:
    """Defaults for flags that are younger than a checkpoint's configuration: a new flag's default changes nothing."""
    missing = {field.name: field.default for field in fields(DiffusionConfig) if not hasattr(cfg, field.name)}
    with open_dict(cfg) if OmegaConf.is_config(cfg) else nullcontext():
        for name, value in missing.items():
            setattr(cfg, name, value)


def enter_architecture(name: str) -> None:
    """Register a preset as --arch; flags given on the command line win over the preset."""

    def fill(cfg: Any) -> None:
        for field, value in PRESETS[name].items():
            setattr(cfg, field, getattr(cfg, field, value))

    register_model_architecture("diffusion", name)(fill)


for architecture in PRESETS:
    if architecture not in ARCH_CONFIG_REGISTRY:
        enter_architecture(architecture)
