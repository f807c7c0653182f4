"""What every run of fairseq-generate says at its end, so that a number cannot be taken for another.

`run` is what makes it, and alone needs fairseq; a report is read and rendered without.
"""

from fairseq_diffusion.reporting.block import render
from fairseq_diffusion.reporting.output import read

__all__ = ["read", "render"]
