"""SUNDAE: Step-unrolled Denoising Autoencoders for Text Generation (Savinov et al., ICLR 2022, arXiv 2112.06749).

Each word of a target is replaced, with a probability r ~ U(0, 1) drawn for the sentence, by one drawn uniformly; the
network does not see r.

*Loss.*  The cross-entropy of all words, on the corrupted sentence y_c and on a sentence drawn from the network's own
estimate of it, without a gradient through the drawing:

    L = (CE(p(. | y_c, x), y) + CE(p(. | y', x), y)) / 2,     y' ~ p(. | y_c, x)

*Sampling.*  From words drawn uniformly, every step draws all words anew from the estimate at a low temperature
(--word-temperature 0.3; 0 takes the most probable), until the most probable words stay the same (--stop-stable 1) or
steps are over.

Ours against the paper: the last step takes the most probable words; the length is a class of its difference to the
source's length, not of half the length, and has no embedding of its own before the source; the network is that of the
other systems here.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_words
from fairseq_diffusion.systems.presets import preset

preset(
    "sundae",
    base="mdlm",
    mask_share=0.0,
    objective="anchor=1",
    unroll=2,
    time_min=0.0,
    time_sampler="uniform",
    sampler="resample",
)
sized_words("sundae")
