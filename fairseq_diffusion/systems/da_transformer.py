"""DA-Transformer: Directed Acyclic Transformer for Non-Autoregressive Machine Translation (Huang et al., ICML 2022,
arXiv 2205.07459).

The decoder writes a graph of L = 8 |x| vertices; a translation is a path through it, so that each way to put it has
vertices of its own, and words of two ways do not meet in one sentence.

    P(y | x) = sum_A prod_t P(y_t | v_(a_t)) E(a_(t-1) -> a_t),   L = -log P(y | x) / M
    E(i -> j) = sum_h softmax_h(g f_i) softmax_(j > i)(q_i^h . k_j^h / sqrt(d / H)),   f_i = [h_i ; position_i]

Glancing shows N = floor(rho |{t: argmax P(.|v_(a_t)) != y_t}|) random words of the first pass' best path, rho from 0.5
to 0.1 in 200,000 updates; paths must go through them.

*Decoding*: --path-search greedy, lookahead (the default), viterbi, joint_viterbi, sample, or beam (over words, all
paths that have them summed up).

Ours against the released code: N is rounded down, not to the nearest; repeats are kept (--drop-repeats drops them);
joint Viterbi counts a link together with the word it leads to, the end's too and the begin's not; beam search sums
paths exactly (over the words listed), and takes no language model.
"""

from fairseq_diffusion.systems import vanilla_nat  # noqa: F401  whose presets are the base of these
from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import preset

preset(
    "da_transformer",
    base="nat",
    two_pass=True,
    alignment="dag",
    upsample=8.0,
    source_copy="none",
    glance_source="any",
    glance_start=0.5,
    glance_end=0.1,
    glance_updates=200_000,
    loss_normaliser="sentences",
    label_smoothing=0.0,
    path_search="lookahead",
)
sized("da_transformer")
