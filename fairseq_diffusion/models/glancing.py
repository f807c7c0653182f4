"""The registered model that writes a translation in one pass, around a GlancingTranslator."""

from __future__ import annotations

from typing import Any

from fairseq.models import register_model
from torch import Tensor

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.models.base import ParallelModel, enter_architectures, fill_up
from fairseq_diffusion.models.build import check_joined
from fairseq_diffusion.models.build_glancing import build_glancing
from fairseq_diffusion.models.glancing_config import GlancingConfig
from fairseq_diffusion.translators.one_pass import GlancingTranslator


@register_model("glancing", dataclass=GlancingConfig)
class GlancingModel(ParallelModel):
    """Turns fairseq's batches into the translator's arguments."""

    kind = "glancing"
    needs_mask = True
    translator: GlancingTranslator

    @classmethod
    def build_model(cls, cfg: GlancingConfig, task: Any) -> GlancingModel:
        fill_up(cfg, GlancingConfig)
        source, target = task.source_dictionary, task.target_dictionary
        if cfg.share_embeddings:
            check_joined(source, target)
        symbols = Symbols(target.bos(), target.pad(), target.eos(), len(target) - 1)
        translator = build_glancing(cfg, len(source), len(target), symbols)
        return cls(cfg, translator, target.bos(), target.pad())

    def losses(
        self, src_tokens: Tensor, target: Tensor, mask: Tensor, keys: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
        parts = self.translator
        losses = parts.losses(self.encode(src_tokens), target, mask, keys, self.num_updates)
        watched = {
            "sample_size": parts.reduction.sample_size(mask),
            "means": losses.means,
            "state": {"glance_ratio": parts.glance.ratio(self.num_updates)} if parts.glance.count == "adaptive" else {},
        }
        return losses.terms, {**parts.weights, "length": self.cfg.length_loss}, watched


enter_architectures("glancing")
