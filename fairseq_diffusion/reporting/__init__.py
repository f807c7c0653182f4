"""What every run of fairseq-generate says at its end, so that a number cannot be taken for another."""

from fairseq_diffusion.reporting.block import render
from fairseq_diffusion.reporting.output import read
from fairseq_diffusion.reporting.run import run

__all__ = ["read", "render", "run"]
