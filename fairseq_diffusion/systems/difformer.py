"""Difformer: Empowering Diffusion Models on the Embedding Space for Text Generation (Gao et al., NAACL 2024,
arXiv 2212.09412).

One table E for the encoder, for what is diffused, and for rounding.  Words become x_0 = sqrt(D) E[y]; noise is F times
what the schedule gives, so that it is not small beside the space between rows (the *noise factor*):

    q(x_t | x_0) = N(sqrt(abar_t) x_0, F^2 (1 - abar_t) I)

    abar(s) = 1 - sqrt(s + 1e-4),   beta_i = min(1 - abar((i + 1) / T) / abar(i / T), 0.999),   i = 0 .. T - 1
    abar_i = prod_(j <= i) (1 - beta_j),   T = 2000,   i ~ U{0 .. T - 1} a sentence

*Loss*, a mean over tokens, with label smoothing 0.1 and the length l as a class.  The second term, the *anchor*, is
the likelihood of the words given the estimate: without it the first is least where all rows are one.

    ||x_0-hat - x_0||^2 / D  -  log softmax(x_0-hat E^T)[y]  -  0.1 log p(l)

*Self-conditioning* at random, with probability p = 0.5, once a batch:

    x_0-hat = z(x_t, t, c),   c = stopgrad z(x_t, t, 0) with probability p, else 0

*Network*: h = FFN([W x_t ; W c]) + time(1000 t) + position behind a LayerNorm, a post-norm Transformer, x_0-hat = W' h.

*Decoding*: F = 1, so that there is less noise than the network was trained to expect; 20 of the T steps, evenly spaced
and with their first and last (beta'_k = 1 - abar_k / abar_(k-1) on that table), of which the 5 least noisy are left
out (early stop 0.25): 15 network calls.  Each draws from the posterior of DDPM and hands x_0-hat on as c:

    x <- [sqrt(abar_(k-1)) beta'_k x_0-hat + sqrt(1 - beta'_k) (1 - abar_(k-1)) x] / (1 - abar_k) + sd_k eps
    sd_k^2 = beta'_k (1 - abar_(k-1)) / (1 - abar_k)

*Candidates*: 7 lengths around the likeliest x 3 noises, rescored by an AR model, is what the published scores stand on:
--iter-decode-max-iter 20 --iter-decode-with-beam 7 --noise-beam 3 --path OURS.pt:AR.pt
--iter-decode-with-external-reranker.

Ours against the released code: self-conditioning is seeded and drawn alike on all ranks; modifier `factor_vp` (the same
signal-to-noise ratio at unit variance) applies F once, where the code's option applies it twice; layers start from this
package's initialisation, not from N(0, 0.02^2), but for E; the network is conditioned on 1000 (i + 1) / T in step i,
not 1000 i / T; dropout of the denoiser's input stands before positions and LayerNorm; the encoder ends in a LayerNorm;
early stop is a share of the steps, where the code leaves out 5 of however many; LayerNorm on the embeddings
(embedding_norm layer) is part of what rounding compares with, too; all means are over the whole batch, not over each
rank's part of it.
"""

from fairseq_diffusion.systems.presets import preset

preset(
    "difformer",
    model="diffusion",
    latent_dim=128,
    embedding_norm="scaled",
    embedding_init_std=0.02,
    share_embeddings=True,
    schedule="sqrt_offset",
    schedule_modifier="factor",
    noise_factor=4.0,
    diffusion_steps=2000,
    prediction="x_0",
    objective="mse=1,anchor=1",
    loss_normaliser="words",
    label_smoothing=0.1,
    self_conditioning="random",
    sampler="ddpm",
    grid="respaced",
    early_stop=0.25,
    length_beam="offsets",
    decode_noise_factor=1.0,
    length_target="difference",
    length_grad=True,
    length_map="linear",
    length_loss=0.1,
    latent_map="linear",
    time_features="sinusoid",
    time_activation="relu",
    activation="relu",
    attention_dropout=0.0,
    activation_dropout=0.0,
    pre_norm=False,
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
# The toy's languages have no word in common, so there is nothing to share; at its high learning rate, rows that begin
# as close together as 0.02 may stay there.
preset(
    "difformer_toy",
    base="difformer",
    share_embeddings=False,
    embedding_init_std=0.1,
    latent_dim=64,
    hidden=128,
    inner=256,
    heads=4,
    encoder_layers=3,
    decoder_layers=3,
    dropout=0.0,
    label_smoothing=0.0,
)
preset("difformer_iwslt_de_en", base="difformer", inner=1024, heads=4, dropout=0.3)
preset("difformer_wmt_en_de", base="difformer", inner=2048, heads=8, dropout=0.1, noise_factor=3.5)
# No script was released for this pair: the settings of WMT14.
preset("difformer_wmt16_en_ro", base="difformer_wmt_en_de")
