"""The backward process: a loop, and short rules over grids computed beforehand.  torch only."""

from fairseq_diffusion.samplers import categorical, confidence, gaussian, resampling  # noqa: F401  enter SAMPLERS
