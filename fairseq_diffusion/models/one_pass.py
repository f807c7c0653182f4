"""The registered model `glancing`: a OnePassTranslator that fairseq can build, train and save."""

from __future__ import annotations

from typing import Any

from fairseq.models import register_model

from fairseq_diffusion.models.base import TranslatorModel, enter_architectures
from fairseq_diffusion.models.build_one_pass import build_one_pass
from fairseq_diffusion.models.one_pass_config import OnePassConfig


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
