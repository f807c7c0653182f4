"""What is corrupted: a contract, and the states that keep it.  torch only."""

from fairseq_diffusion.states import embedding  # noqa: F401  enters it in STATES
