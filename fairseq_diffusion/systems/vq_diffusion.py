"""VQ-Diffusion: Vector Quantized Diffusion Model for Text-to-Image Synthesis (Gu et al., CVPR 2022, arXiv 2111.14822),
whose corruption of codes is that of words here.

*Mask and replace.*  Until step t of T = 100 a word is kept with probability a_t = 1 - t / T.  Of what is not kept, nine
tenths are hidden and the others replaced by words drawn uniformly, so the network learns to find wrong words, too.
(--mask-share 1, 0 and 0.9 are the three mixtures that Diffsound, Yang et al. 2023, compares.)

*Loss.*  The variational bound, and a little of the cross-entropy of all words:

    E_t  T (KL(q(y_(t-1) | y_t, y_0) || p(y_(t-1) | y_t)) - 0.0005 log p(y_0 | y_t))

Times are drawn in proportion to the root of their mean squared loss, and weighted back.

*Sampling.*  y_0 is drawn from the most probable words that have 86 % together (--top-p 0.86), and y_s from
q(y_s | y_t, y_0); with --guidance w log p = log p(. | nothing) + w (log p(. | x) - log p(. | nothing)), from a null
vector that is learned in the place of a tenth of the sources.

Ours against the paper: translations instead of images; <s> and </s> are given with the length, which is predicted; the
share that is kept ends at 0, not 0.000009; the cross-entropy has one weight at all times; words that are hidden and
words that are seen weigh the same; the purity prior is `--sampler purity`; guidance mixes the network's last states,
which gives the same log p.
"""

from fairseq_diffusion.systems import d3pm  # noqa: F401  whose preset is the base of this
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "vq_diffusion",
    base="d3pm_absorb",
    mask_share=0.9,
    diffusion_steps=100,
    objective="vlb=1,anchor=0.05",
    time_sampler="second_moment",
    time_conditioning="norm",
    source_drop=0.1,
)
sized_diffusion("vq_diffusion")
