"""Diff-Glat: Diffusion Glancing Transformer for Parallel Sequence-to-Sequence Learning (Qian et al., NAACL 2024,
arXiv 2212.10240).  OUR RECONSTRUCTION: of the paper only abstract and outline were at hand, which fix a discrete
*modality diffusion* along the decoding steps, and *residual glancing sampling* across the layers.  All else is ours,
and no number here reproduces one of the paper's.

*Modality diffusion.*  The decoder is cut into T blocks of layers.  z_0 is all mask m, z_T the translation y; position i
shows its word from a random boundary on, kappa_s = s / T or 1 - cos(pi s / 2T):

    q(z_s,i = y_i) = kappa_s,   q(z_s,i = m) = 1 - kappa_s,   0 = kappa_0 <= ... <= kappa_T = 1

*Blocks* are the chain's backward steps, all in one pass, with one output projection W:

    h_0 = E[z_0] + position,   h_s = Block_s(fuse_s(h_(s-1), E[z_(s-1)])),   p_s(.|i) = softmax(W h_s,i)
    fuse_s(h, e) = U_s [h ; e]   or   h + g_s * (e - E[m])

*Residual glancing*, in training: from what block s has wrong, S_0 = {},

    D_s = {i not in S_(s-1): argmax p_s(.|i) != y_i},   S_s = S_(s-1) + a random subset of D_s, of N_s positions
    N_1 + .. + N_s = floor(rho_1 |D_1| + .. + rho_s |D_s|)   (each rounded on its own, a short sentence's would be none)
    rho_s = 1 - (1 - rho)^(1 / (T - 1)),   rho falls from 0.5 to 0.3 over the updates;   z_s,i = y_i on S_s, else m

    L = sum_s w_s / |not S_(s-1)| sum_(i not in S_(s-1)) -log p_s(y_i|i),   w_s = 1 / T or 2s / (T (T + 1))

With --two-pass a pass without gradient and with the same dropout decides what is wrong, and glancing starts before
block 1.

*Decoding* is one pass: behind block s the floor(kappa_s n) likeliest words are revealed and stay; block T predicts the
rest.  With CTC nothing is revealed (kappa_s = 0 for s < T): on real text that was better by 4 BLEU (docs/quality.md).

*Alignments*: a predicted length; CTC, where block s's own best alignment decides which position shows which word, and
what is shown forces all later alignments; or a DAG, likewise.  Positions i are then those of the canvas that have a
word (CTC: not a blank, unless --reveal positions; a DAG in decoding: vertices on its likeliest path), and a block's
loss is -log P(y | shown, x) over the number of words.
"""

from fairseq_diffusion.systems import vanilla_nat  # noqa: F401  whose presets are the base of these
from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import preset

preset(
    "diffglat",
    base="nat",
    blocks=6,
    fuse="linear",
    feed="mask",
    source_copy="soft",
    glance_count="adaptive",
    glance_source="wrong",
    glance_start=0.5,
    glance_end=0.3,
    glance_updates=300_000,
    keep_schedule="linear",
    block_weights="uniform",
)
# Each block more means another likelihood in training, and on a canvas this long another projection in decoding.
preset(
    "diffglat_ctc",
    base="diffglat",
    alignment="ctc",
    keep_schedule="none",
    reveal="words",
    upsample=2.0,
    blocks=3,
    label_smoothing=0.0,
)
preset(
    "diffglat_dag",
    base="diffglat",
    alignment="dag",
    upsample=8.0,
    blocks=2,
    source_copy="none",
    label_smoothing=0.0,
    glance_end=0.1,
    glance_updates=200_000,
    loss_normaliser="sentences",
)

sized("diffglat")
sized("diffglat", "_ctc", keep_schedule="linear")  # the toy is about modes that mix, where revealing helps
sized("diffglat", "_dag")
