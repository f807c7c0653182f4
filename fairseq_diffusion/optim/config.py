"""The optimiser's flags.  No annotations from the future here: fairseq reads the fields' types."""

from dataclasses import dataclass
from typing import Any, List

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from fairseq_diffusion.models.config import flag


@dataclass
class FusedAdamConfig(FairseqDataclass):
    """The flags of fairseq's adam, without those that choose another implementation."""

    adam_betas: Any = flag((0.9, 0.999), "betas for Adam optimizer")
    adam_eps: float = flag(1e-8, "epsilon for Adam optimizer")
    weight_decay: float = flag(0.0, "weight decay, decoupled from the gradient")
    lr: List[float] = II("optimization.lr")  # noqa: UP006  omegaconf 2.0 knows List only
