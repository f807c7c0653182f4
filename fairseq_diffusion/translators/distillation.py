"""What a student learns in progressive distillation.  torch only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairseq_diffusion.objective.terms import Objective
from fairseq_diffusion.samplers.halving import Halving

if TYPE_CHECKING:
    from fairseq_diffusion.translators.diffusion import DiffusionTranslator


@dataclass(frozen=True)
class DistillationTargets:
    """What a student of N steps learns instead of s_0: where its teacher's two steps lead."""

    halving: Halving
    teacher: DiffusionTranslator
    objective: Objective
