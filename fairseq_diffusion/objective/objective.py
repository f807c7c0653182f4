"""A weighted list of terms."""

from __future__ import annotations

from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.objective.reduction import Reduction
from fairseq_diffusion.objective.terms import TERMS, Outcome


def parse_terms(text: str) -> dict[str, float]:
    """ "mse=1,anchor=0.5" -> {"mse": 1.0, "anchor": 0.5}; a term without a weight has weight 1."""
    weights: dict[str, float] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, _, weight = item.partition("=")
        TERMS[name]  # an unknown name is an error that lists the choices
        try:
            weights[name] = float(weight or 1)
        except ValueError as error:
            raise UserError(f"objective term {item!r} has no number behind '='; write for example mse=1") from error
    if not weights:
        raise UserError(f"the objective {text!r} names no term; choose from: {', '.join(TERMS)}")
    return weights


class Objective(Reduction):
    """Sum of weighted terms."""

    def __init__(self, terms: str, normaliser: str = "sentences"):
        super().__init__(normaliser)
        self.weights = parse_terms(terms)

    def terms(self, outcome: Outcome, mask: Tensor) -> dict[str, Tensor]:
        """Each term's share [B] of the batch's loss before weighting; mask [B, L] is true where a loss is due."""
        return {name: self.share(TERMS[name](outcome, mask), mask) for name in self.weights}
