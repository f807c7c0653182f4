"""Latent diffusion for translation, read in one pass; after LD4LG: Latent Diffusion for Language Generation (Lovelace
et al., NeurIPS 2023, arXiv 2212.09462), whose latents are read by an autoregressive decoder.

M latents u_0 = Enc(y), rows of norm sqrt(D), stand for the target.  A denoiser learns them given the source, with
v = alpha eps - sigma u_0 as its output and noise for most of the time (s = 0.1, so F = 1 / s = 10):

    alpha^2 = sigmoid(log SNR + 2 log s),  SNR that of a cosine,     L_u = E_t || v-hat(u_t, x) - v ||^2 / D

All words are then predicted at once from u_0 and the source x: with a predicted length, with CTC, or as a graph.

    L = -log P(y | u_0, x) / n  +  L_u

*Decoding.*  u in 50 steps of DDIM (--latents-steps), with x_0 = w conditional + (1 - w) unconditional, w = 2
(--latents-guidance), every estimate scaled to norm sqrt(D); then one pass.

Ours against the paper: words in one pass, not by a language model with beam search; the encoder of targets, and that of
sources, are learnt along, where the paper's are of BART, FLAN-T5 or mT5; 2 layers in place of 12 for the denoiser,
without its long skips; the loss of v is squared, the paper's for pairs absolute; DDIM, not 250 steps of DDPM.
"""

from fairseq_diffusion.systems import vanilla_nat  # noqa: F401  whose presets are the base of these
from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import preset

preset(
    "latent_nat",
    base="nat",
    latents=32,
    latents_dim=64,
    latents_layers=2,
    latents_prediction="v",
    latents_objective="v_mse=1",
    latents_noise_factor=10.0,
    latents_source_drop=0.1,
    latents_drop=0.1,
    latents_start=30_000,
)
preset("latent_nat_ctc", base="latent_nat", alignment="ctc", upsample=2.0, label_smoothing=0.0)
preset(
    "latent_nat_dag",
    base="latent_nat",
    alignment="dag",
    upsample=8.0,
    source_copy="none",
    label_smoothing=0.0,
    loss_normaliser="sentences",
)
for suffix in ("", "_ctc", "_dag"):
    sized("latent_nat", suffix, latents=4, latents_start=800)
