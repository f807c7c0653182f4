"""The fairseq skin of the models.  Importing this registers every architecture."""

from fairseq_diffusion.models import diffusion, one_pass  # noqa: F401
