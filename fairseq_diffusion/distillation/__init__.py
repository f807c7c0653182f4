"""Sequence-level knowledge distillation (Kim and Rush 2016): a teacher's translations become the training targets.

`data` reads and writes data-bins, `teacher` reads the teacher's checkpoints, `plan` is what its translations depend on,
`command` is the command line of fairseq-generate, `shards` runs it, `gather` filters the translations, `output` writes
the new data-bin.
"""

import fairseq_diffusion

fairseq_diffusion.load()  # registers our task, whose flags are parsed here; an error where there is no fairseq
