"""SEDD: Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al., ICML 2024, arXiv
2310.16834), with the absorbing and the uniform kernel, here conditioned on a source.

By time t a word is kept with probability a_t = exp(-sigma(t)), a_t = 1 - t (absorbing; log-linear) or
sigma(t) = 1e-4^(1-t) 20^t (uniform; geometric), and else hidden, or drawn uniformly from K words.

*Loss.*  Going back from y_t the process jumps to another word k at the rate R_k s_k, with R_k that of k -> y_t on the
way forward and the score s_k = q(y_t = k) / q(y_t).  From weights w_j > 0 for what y_0 may be, that need not add up to
1,

    s_k = sum_j w_j q(y_t = k | y_0 = j) / q(y_t | y_0 = j)

and with r_k the score where y_0 is known, the denoising score entropy is

    E_t  sum over k != y_t of  R_k (s_k - r_k log s_k + r_k (log r_k - 1))

For the absorbing kernel this is MDLM's loss plus -a'_t / (1 - a_t) (Z - 1 - log Z) for each hidden word, Z = sum_j w_j.

*Sampling* takes w over its sum for the estimate, and is the reverse process of that estimate (`ancestral`).  It is what
the paper's Tweedie step is where Z = 1; with a_t = 1 - t its Euler step is the same, too.

Ours against the paper: an encoder of the source, and attention to it; <s> and </s> are given with the length, which is
predicted; with the uniform kernel the network gives w and not the scores themselves, so scores are those of some
distribution always; times are stratified over a batch; the network sees t, not sigma, in each LayerNorm; the last step
takes the most probable words and draws none; learned positions.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "sedd_absorb",
    base="mdlm",
    objective="score_entropy=1",
    time_features="sinusoid",
    time_conditioning="norm",
)
preset("sedd_uniform", base="sedd_absorb", mask_share=0.0, schedule="geometric_decay")
sized_diffusion("sedd", "_absorb")
sized_diffusion("sedd", "_uniform")
