"""RDM: A Reparameterized Discrete Diffusion Model for Text Generation (Zheng et al., COLM 2024, arXiv 2302.05737), with
the absorbing and the uniform kernel.

A word is noise by step t of T = 50 with probability 1 - a_t: it is hidden (absorbing: a_t = 1 - t / T), or drawn
uniformly (uniform: a_t = cos^2(pi/2 (t/T + 0.008) / 1.008) over its value at 0).

*Loss.*  The cross-entropy of the words that are noise with a weight that is linear in the step, and label smoothing:

    lambda_(t-1)  sum over noise i  -log p(y_i | y_t, x),     lambda_(t-1) = 1 - (t - 1) / T

*Sampling.*  Step s of S predicts all words; of the k with the lowest probability, k = floor(n cos(pi/2 (s+1)/S)), those
that were noise are noise drawn anew, and those that were shown become noise again if the network predicts them again
with a lower probability than when it showed them (--sampler routing_unconditional: in any case).  The others are shown.
A word that is shown never changes but by becoming noise.  With the uniform kernel noise looks like words, so which are
shown is remembered, and the network does not see it.

The length is predicted along, with a weight of 0.1 beside a likelihood that is multiplied by T: 0.002 here.  (With 0.1,
which trains the encoder too, a small model learns nothing else.)

Ours against the released code: <s> and </s> are neither corrupted nor predicted (there they are in training, not in
decoding); one time a sentence is drawn, not two coupled ones; the words to hide are chosen by rank (there by a
threshold, which may leave a mask at the end); a word's probability is compared with the one it was shown with, not with
that of the step before; routing is deterministic everywhere (WMT16: stochastic there); positions are added, not joined;
the length is a class of its difference to the source's; label smoothing is weighted as the likelihood is.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "rdm_absorb",
    base="mdlm",
    diffusion_steps=50,
    objective="reweighted=1",
    label_smoothing=0.1,
    time_min=0.0,
    time_sampler="uniform",
    time_features="sinusoid",
    sampler="routing",
    grid="cosine",
    length_grad=True,
    length_loss=0.002,
)
preset("rdm_uniform", base="rdm_absorb", mask_share=0.0, schedule="cosine")
WMT = {"dropout": 0.2, "sampler": "routing_unconditional"}
sized_diffusion("rdm", "_absorb", wmt_en_de=WMT, wmt16_en_ro=WMT)
sized_diffusion("rdm", "_uniform", wmt_en_de=WMT, wmt16_en_ro=WMT)
