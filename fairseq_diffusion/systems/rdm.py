"""RDM: A Reparameterized Discrete Diffusion Model for Text Generation (Zheng et al., COLM 2024, arXiv 2302.05737), with
the absorbing kernel.

A word is hidden by step t of T = 50 with probability t / T.

*Loss.*  The cross-entropy of the hidden words with a weight that is linear in the step, and label smoothing:

    lambda_(t-1)  sum over hidden i  -log p(y_i | y_t, x),     lambda_(t-1) = 1 - (t - 1) / T

*Sampling.*  Step s of S predicts all words; of the k with the lowest probability, k = floor(n cos(pi/2 (s+1)/S)), those
that were hidden stay hidden, and those that were shown are hidden again if the network predicts them again with a lower
probability than when it showed them (--sampler routing_unconditional: in any case).  The others are shown.  A word that
is shown never changes but by being hidden.

The length is predicted along, with a weight of 0.1 beside a likelihood that is multiplied by T: 0.002 here.  (With 0.1,
which trains the encoder too, a small model learns nothing else.)

Ours against the released code: <s> and </s> are neither corrupted nor predicted (there they are in training, not in
decoding); one time a sentence is drawn, not two coupled ones; the words to hide are chosen by rank (there by a
threshold, which may leave a mask at the end); a word's probability is compared with the one it was shown with, not with
that of the step before; routing is deterministic everywhere (WMT16: stochastic there); positions are added, not joined;
the length is a class of its difference to the source's; label smoothing is weighted as the likelihood is.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_words
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
WMT = {"dropout": 0.2, "sampler": "routing_unconditional"}
sized_words("rdm", "_absorb", wmt_en_de=WMT, wmt16_en_ro=WMT)
