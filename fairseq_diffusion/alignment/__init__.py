"""How words find their places on a canvas, and a canvas becomes a sentence: length, CTC, DAG.  torch only."""

from fairseq_diffusion.alignment import ctc, dag, length  # noqa: F401  enters them in BACK_ENDS
