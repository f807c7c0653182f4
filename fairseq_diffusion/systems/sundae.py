"""SUNDAE: Step-unrolled Denoising Autoencoders for Text Generation (Savinov et al., ICLR 2022, arXiv 2112.06749).

Each word of a target is replaced, with a probability r ~ U(0, 1) drawn for the sentence, by one drawn uniformly; the
network does not see r.

*Loss.*  The cross-entropy of all words, on the corrupted sentence y_c and on a sentence drawn from the network's own
estimate of it, without a gradient through the drawing:

    L = (CE(p(. | y_c, x), y) + CE(p(. | y', x), y)) / 2,     y' ~ p(. | y_c, x)

*Sampling.*  From words drawn uniformly, every step draws all words anew from the estimate at a low temperature
(--word-temperature 0.3; 0 takes the most probable), or a share of them, the least probable (--eta), until
the most probable words stay the same (--stop-stable 1) or steps are over.  Half the length, rounded up, is a class that
is predicted; what is left is filled with </s>.

Ours against the paper: the last step takes the most probable words; the class of the length has no embedding before the
source, since the network sees how many positions there are; the map to these classes has two layers, not six residual
blocks; the network is that of the other systems here.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_diffusion
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
    length_target="half",
)
sized_diffusion("sundae")
