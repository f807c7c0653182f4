"""GLAT: Glancing Transformer for Non-Autoregressive Neural Machine Translation (Qian et al., ACL 2021,
arXiv 2008.07905).

A first pass without gradient predicts y-hat; of the n words, N random ones are shown to the second, whose loss is on
the rest.  Whoever errs less is shown less:

    N = floor(rho(u) |{i: y-hat_i != y_i}|),   rho(u) = 0.5 - 0.2 min(1, u / 300,000)
    L = mean of -log p(y_i | shown, x) over all words of a batch that are not shown

With CTC (Gu and Kong 2021) the canvas is twice as long as the source, and what is shown stands where the first pass'
best alignment has it; the loss is -log P(y | shown, x) over the number of words.

Ours against the released code: <s> and </s> are given, and so never use up what may be shown; the source is copied by a
softmax over distances with one learnt temperature, not by learnt attention of positions; positions are added once, not
before each layer; the length loss does not shrink with what is shown; with CTC, N counts wrong positions of the canvas
(blanks too, unless --reveal words), <s> is the blank, and all alignments must agree with what is shown.
"""

from fairseq_diffusion.systems import vanilla_nat  # noqa: F401  whose presets are the base of these
from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import preset

preset(
    "glat",
    base="nat",
    two_pass=True,
    source_copy="soft",
    glance_source="any",
    glance_start=0.5,
    glance_end=0.3,
    glance_updates=300_000,
)
preset("glat_ctc", base="glat", alignment="ctc", upsample=2.0, label_smoothing=0.0)
sized("glat")
sized("glat", "_ctc")
