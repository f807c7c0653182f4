"""The contrast of words' states that flags ask for, those of a model or of a criterion."""

from __future__ import annotations

from typing import Any

from fairseq_diffusion.objective.contrast import LEAST_TEMPERATURE, FrequencyContrast
from fairseq_diffusion.ranges import KEPT, WEIGHT, check_ranges

RANGES = {"frequency_contrast": WEIGHT, "contrast_temperature": (LEAST_TEMPERATURE, 100), "contrast_dropout": KEPT}


def contrast_of(cfg: Any) -> FrequencyContrast | None:
    """None where its weight is 0."""
    check_ranges(cfg, RANGES)
    if not cfg.frequency_contrast:
        return None
    return FrequencyContrast(cfg.frequency_contrast, cfg.contrast_temperature, cfg.contrast_dropout)
