"""Sequence-level knowledge distillation (Kim and Rush 2016): a teacher's translations become the training targets.

`data` reads and writes data-bins, `teacher` knows the model that decodes, `plan` what its translations depend on,
`command` is that of fairseq-generate, `shards` runs it, `gather` chooses among the translations, `output` puts the new
data-bin in its place.
"""

import fairseq_diffusion

fairseq_diffusion.load()  # says so where there is no fairseq; and flags of our task are parsed before it decodes
