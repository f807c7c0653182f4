"""DDCap: Exploring Discrete Diffusion Models for Image Captioning (Zhu et al., 2022, arXiv 2211.11694), with a sentence
in the place of the image.

A word is hidden by step t of T = 20 with probability t / T.

*Loss.*  The cross-entropy of all words, those that are seen too, and that of the length, a class of its own, which does
not train the encoder:

    E_t  sum over i of -log p(y_i | y_t, x)  -  log p(n | x)

*Attention.*  A position attends to words that are seen, and to itself: a mask says nothing to others.

*Sampling, best first.*  Of n words, step s of S shows the floor(n (S - s) / S) - floor(n (S - s - 1) / S) most
probable ones that are hidden, and what is shown stays.  With n <= S that is a word in each of n calls, and no other
call is made.  A null vector is learned in the place of a tenth of the sources, for --guidance (the paper's is 1.06).

Ours against the released code: words are hidden only (there one in a million is replaced, which the code undoes);
positions are ranked by log p (there by a softmax of p); a source is dropped for each sentence on its own; <s> and </s>
are given with the length; remainders of n / S are shown early (there late).
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of this
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "ddcap",
    base="mdlm",
    diffusion_steps=20,
    objective="anchor=1",
    time_min=0.0,
    time_sampler="uniform",
    time_features="sinusoid",
    hide_masked=True,
    source_drop=0.1,
    sampler="confidence",
    length_target="absolute",
    length_loss=1.0,
)
sized_diffusion("ddcap")
