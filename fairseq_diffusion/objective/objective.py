"""A weighted list of terms, and the one place where [B, L] becomes a loss."""

from __future__ import annotations

from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.objective.terms import TERMS, Outcome

NORMALISERS = ("sentences", "tokens")


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


class Objective:
    """Sum of weighted terms.

    With normaliser "sentences" every sentence counts alike (DINOISER), with "tokens" every token does.  Losses stay
    sums over the batch; fairseq divides by the sum of `sample_size` over ranks and --update-freq, so that neither
    changes what a sentence weighs.
    """

    def __init__(self, terms: str, normaliser: str = "sentences"):
        self.weights = parse_terms(terms)
        if normaliser not in NORMALISERS:
            raise UserError(f"unknown loss normaliser {normaliser!r}; choose one of: {', '.join(NORMALISERS)}")
        self.normaliser = normaliser

    def terms(self, outcome: Outcome, mask: Tensor) -> dict[str, Tensor]:
        """Each term's share [B] of the batch's loss before weighting; mask [B, L] is true where a loss is due."""
        return {name: self.share(TERMS[name](outcome), mask) for name in self.weights}

    def share(self, values: Tensor, mask: Tensor) -> Tensor:
        """Values [B, L], or one a sentence [B], -> what each sentence adds to the loss, [B]."""
        if values.dim() == 1:
            values = values[:, None].expand(mask.shape)
        total = values.masked_fill(~mask, 0).sum(-1)
        return total / mask.sum(-1) if self.normaliser == "sentences" else total

    def sample_size(self, mask: Tensor) -> int | Tensor:
        """What the summed shares are to be divided by."""
        return len(mask) if self.normaliser == "sentences" else mask.sum()
