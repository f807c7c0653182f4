"""MDLM: Simple and Effective Masked Diffusion Language Models (Sahoo et al., NeurIPS 2024, arXiv 2406.07524), here
conditioned on a source.

At a time t a word is seen with probability a_t = 1 - t (log-linear) and else hidden behind the mask symbol.

*Loss.*  The mask symbol has no probability, and words that are seen are carried over, so the negative evidence lower
bound in continuous time is a weighted cross-entropy of the hidden words:

    E_t  w(t)  sum over hidden i  -log p(y_i | y_t, x),     w(t) = -a'_t / (1 - a_t),  here 1 / t

Times are stratified over a batch, t >= 0.001, and the network does not see them.

*Sampling.*  From t to s each hidden word is revealed with probability (a_s - a_t) / (1 - a_t), drawn from the estimate.
`--sampler confidence` reveals the surest words first instead, and `--sampler mask_predict` may hide them again.

Ours against the paper: an encoder of the source, and attention to it; <s> and </s> are given with the length, which is
predicted; the last step takes the most probable words and draws none; the network is the one of the other systems here,
not a DiT.
"""

from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "mdlm",
    model="diffusion",
    state="tokens",
    mask_share=1.0,
    schedule="log_linear",
    objective="elbo=1",
    time_min=1e-3,
    time_sampler="stratified",
    time_features="none",
    loss_normaliser="words",
    self_conditioning="none",
    share_embeddings=True,
    attention_dropout=0.0,
    activation_dropout=0.0,
    sampler="ancestral",
    length_target="difference",
    activation="gelu",
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
sized_diffusion("mdlm")
