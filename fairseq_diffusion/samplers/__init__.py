"""The backward process: a loop, and short rules over grids computed beforehand.  torch only."""

from fairseq_diffusion.samplers import gaussian  # noqa: F401  enters them in SAMPLERS
