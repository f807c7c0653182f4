"""The fairseq skin of the models.  Importing this registers every architecture."""

from fairseq_diffusion.models import diffusion, glancing  # noqa: F401
