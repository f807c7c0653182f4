"""How decoder positions map to target tokens: by a predicted length, by CTC, or by a DAG.  torch only."""

from fairseq_diffusion.alignment import ctc, dag, length  # noqa: F401  enters them in ALIGNMENTS
