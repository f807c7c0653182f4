"""The backward process: a loop, and short rules over grids computed beforehand.  torch only."""

from fairseq_diffusion.samplers import categorical, gaussian  # noqa: F401  enter theirs in SAMPLERS
