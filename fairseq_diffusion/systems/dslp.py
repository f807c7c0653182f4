"""DSLP: Non-Autoregressive Translation with Layer-Wise Prediction and Deep Supervision (Huang et al., AAAI 2022,
arXiv 2110.07515).

Each layer predicts the whole translation, and the next reads it: a chain of K blocks that shows the model's own words,
nothing true, and has a loss everywhere.

    h_s = Layer_s(U_s [h_(s-1) ; E[argmax p_(s-1)]]),   L = 1 / K sum_s -sum_j log p_s(y_j) / n

What a layer reads in training may be a special symbol where the layer before knows no better; in decoding never.

Ours against the released code: the projection has no layer's own parameters, U_s starts as [1 0], and mixed training
(a share of true words fed) is --glance-start and --glance-end above 0, adaptive instead of 30 % everywhere.
"""

from fairseq_diffusion.systems import vanilla_nat  # noqa: F401  whose presets are the base of these
from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import preset

preset(
    "dslp",
    base="nat",
    blocks=6,
    fuse="linear",
    feed="self",
    keep_schedule="none",
    block_weights="uniform",
)
preset("dslp_ctc", base="dslp", alignment="ctc", upsample=2.0, label_smoothing=0.0)
sized("dslp")
sized("dslp", "_ctc")
