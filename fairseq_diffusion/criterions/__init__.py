"""The fairseq skin of the loss.  Importing this registers every criterion."""

from fairseq_diffusion.criterions import diffusion_loss, frequency_contrast, progressive_distillation  # noqa: F401
