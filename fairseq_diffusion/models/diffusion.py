"""The registered model `diffusion`: a DiffusionTranslator that fairseq can build, train and save."""

from __future__ import annotations

from typing import Any

from fairseq.models import register_model

from fairseq_diffusion.models.base import TranslatorModel, enter_architectures
from fairseq_diffusion.models.build_diffusion import build_diffusion
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.states.base import STATES


@register_model("diffusion", dataclass=DiffusionConfig)
class DiffusionModel(TranslatorModel):
    """Denoises step by step."""

    Config = DiffusionConfig
    build_translator = staticmethod(build_diffusion)

    @staticmethod
    def needs_mask(cfg: Any) -> bool:
        return STATES[str(getattr(cfg, "state", DiffusionConfig.state))].needs_mask


enter_architectures("diffusion")
