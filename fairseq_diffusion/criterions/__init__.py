"""The fairseq skin of the loss.  Importing this registers every criterion."""

from fairseq_diffusion.criterions import (  # noqa: F401
    diffusion_loss,
    e_arm,
    frequency_contrast,
    progressive_distillation,
)
