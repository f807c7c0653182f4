"""The parts of a model put together: losses on one side, decoding on the other.  torch only."""

from fairseq_diffusion.translators.diffusion import DiffusionTranslator
from fairseq_diffusion.translators.one_pass import OnePassTranslator

TRANSLATORS = (DiffusionTranslator, OnePassTranslator)
