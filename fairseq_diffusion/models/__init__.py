"""The fairseq skin of the model.  Importing this registers every architecture."""

from fairseq_diffusion.models import diffusion  # noqa: F401
