"""The report at the end of every run of fairseq-generate: what was decoded, how, how well, how fast, and on what.

`run` makes it, and needs fairseq; `read` and `render` do not.
"""

from fairseq_diffusion.reporting.block import render
from fairseq_diffusion.reporting.output import read

__all__ = ["read", "render"]
