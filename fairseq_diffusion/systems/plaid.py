"""Plaid: Likelihood-Based Diffusion Language Models (Gulrajani and Hashimoto, NeurIPS 2023, arXiv 2305.18619), to
translate.

Words are rows E[y] of norm sqrt(D), D = 16, under noise by gamma(t) = -log SNR, from -3 at t = 0 to 6 at t = 1:

    x_t = alpha E[y] + sigma eps,   sigma^2 = sigmoid(gamma(t)),   alpha^2 + sigma^2 = 1

*The network says how probable words are*, beside what x_t says of each word by itself, which it need not learn:

    p(y | x_t, c) = softmax((z(x_t, t, c) + alpha / sigma^2 x_t) E^T),   x_0-hat = sum_y p(y) E[y]

*Loss*: the variational bound on -log p(y | x), in nats, in continuous time:

    -1/2 (d SNR / dt) || x_0-hat - E[y] ||^2  -  log softmax(alpha / sigma^2 x_t E^T)[y] at t = 0   (+ a constant)

*Learned schedule*: gamma between its ends is that under which the loss varies least from time to time, which changes
its variance alone.

*Self-conditioning* in a quarter of the updates, on the mean vectors.  *Sampling*: DDPM, 4,096 steps in the paper,
evenly in t, with --temperature 0.9.  `fairseq-diffusion likelihood` gives the bound of any translation.

Ours against the paper: gamma is fitted by counting (schedule modifier `least_variance`), not as a network that has the
gradient of the squared loss; its ends are those that the paper's code learnt, not learned; the last words are read by
Bayes' rule alone, which the paper's network improves on, and which costs no call; what x_t says of words is there from
the first update, not blended in over 5,000; an encoder reads the source, where the paper has one language alone;
canvas and sizes are those of the other systems here.
"""

from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "plaid",
    model="diffusion",
    latent_dim=16,
    embedding_norm="l2",
    embedding_init_std=1.0,
    share_embeddings=True,
    schedule="log_snr",
    schedule_modifier="least_variance",
    schedule_update=50,
    prediction="posterior",
    objective="snr_mse=1,reconstruction=1",
    loss_normaliser="words",
    time_sampler="stratified",
    self_conditioning="random",
    self_conditioning_probability=0.25,
    sampler="ddpm",
    grid="training",
    length_target="canvas",
    canvas_positions=64,
    latent_map="linear",
    time_features="fourier",
    time_conditioning="norm",
    activation="gelu",
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
sized_diffusion("plaid", toy={"canvas_positions": 24})
