"""CDCD: Continuous Diffusion for Categorical Data (Dieleman et al. 2022, arXiv 2211.15089), its translation model.

Words become rows of norm sqrt(D), x_0 = E[y], under noise of a strength tau from 1 to 300; the network reads the state
of unit variance:

    x_tau = x_0 + tau eps,   s_t = x_tau / sqrt(1 + tau^2)

*Score interpolation.*  The network says how probable words are, and x_0-hat is the mean of their vectors by that:

    p(y | s_t, c) = softmax(o E^T),   x_0-hat = sum_y p(y) E[y],   o = z(s_t, t, c)

*Loss*: -log p(y), alone.  Cross-entropy through the network keeps the rows apart.

*Time warping.*  With F(t) the mean loss at t, made increasing and scaled to end at 1, times are even in the loss:

    t = F^-1(u),   u stratified over the batch

and so are the steps of decoding (grid `training`).

*Self-conditioning* in half of the updates, on the mean vectors: c = stopgrad x_0-hat(s_t, t, 0), else 0.

*Sampling*.  The ODE dx/dtau = (x - x_0-hat) / (tau T), T = 0.8, from noise to tau = 1, with guidance
x_0-hat = u + w (x_0-hat - u), u without a source, w = 4: --temperature 0.8 --guidance 4.  200 steps in the paper.

*Length*: a canvas of 160 positions, up to the first </s>; the encoder knows the number of the source's tokens.

Ours against the paper: the warp is fitted by counting (schedule modifier `warp`), not by a gradient of its own; the
noise levels that it warps are even in log tau; one solver step of the ODE is exact for a fixed x_0-hat: at T = 1 it is
DDIM's and the paper's Euler step, at T = 0.8 (tau_s / tau_t)^(1 / T); self-conditioning is drawn for a batch, not
for half of its sentences; the last call is at the last time of the grid but one, not at tau = 1; the canvas is filled
with </s>, which is also its end; learned positions on both sides; the length of the source is a vector that is added to
its words; IWSLT14's preset, which the paper has not, has rows of 64 dimensions.
"""

from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "cdcd",
    model="diffusion",
    latent_dim=256,
    embedding_norm="l2",
    embedding_init_std=1e-3,
    share_embeddings=True,
    schedule="variance_exploding",
    schedule_modifier="warp",
    schedule_update=50,
    prediction="expected",
    objective="anchor=1",
    loss_normaliser="words",
    time_sampler="stratified",
    self_conditioning="random",
    source_drop=0.1,
    sampler="ddim",
    grid="training",
    length_target="canvas",
    canvas_positions=160,
    encode_length=True,
    latent_map="linear",
    time_features="fourier",
    time_conditioning="norm",
    activation="relu",
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
sized_diffusion("cdcd", toy={"latent_dim": 64, "canvas_positions": 24}, iwslt_de_en={"latent_dim": 64})
