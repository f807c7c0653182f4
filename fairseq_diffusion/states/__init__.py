"""What is corrupted: a contract, and the states that keep it.  torch only."""

from fairseq_diffusion.states import embedding, joint, tokens  # noqa: F401  enter them in STATES
