"""DINOISER: Diffused Conditional Sequence Learning by Manipulating Noises (Ye et al., TACL 2024, arXiv 2302.10025).

Words become rows of norm sqrt(D), x_0 = E[y]; noise is variance preserving with sigma(t) = t (section 2):

    q(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I),   alpha = sqrt(1 - sigma^2)

*Noise-scale clipping* (eq. 12-14).  Noise smaller than the space between rows teaches nothing but copying:

    delta^2 = 1/(V D) sum_i min_{j != i} ||E_i - E_j||^2
    t ~ U(sigma^-1(sigma_min), 1),   sigma_min = sqrt(delta^2 / (1 + delta^2))

*Loss* (eq. 9), a mean over sentences, whose first term is taken on both passes of self-conditioning:

    ||x_0-hat(x_t, t, c) - x_0||^2 / D  -  log softmax(x_0 E^T)[y],   c in {0, stopgrad x_0-hat(x_t, t, 0)}

*CeDi* (section 4.2).  M steps; the sample walks t_i from 1 to 0.001, the network is conditioned on tau_i from 1 to
0.99, so that it must lean on the source; with x_0-hat = z(x, tau_i, c):

    x <- alpha(t_{i+1}) x_0-hat + sigma(t_{i+1}) (x - alpha(tau_i) x_0-hat) / sigma(tau_i),   c <- x_0-hat

Ours against the released code: sigma_min lives in the checkpoint, is estimated before times are drawn (as the paper
says; the code lags a step) and every `schedule_update` updates only; the rounding term, equal in both passes, is
computed once; both passes are averaged (the code sums them, which Adam does not see); the length head is trained along.
"""

from fairseq_diffusion.systems.presets import preset

preset(
    "dinoiser",
    model="diffusion",
    embedding_norm="l2",
    embedding_init_std=1e-3,
    schedule="sigma_t",
    schedule_modifier="clip",
    prediction="x_0",
    objective="mse=1,rounding=1",
    loss_normaliser="sentences",
    self_conditioning="both",
    sampler="cedi",
    length_target="difference",
    length_grad=False,
    activation="gelu",
    pre_norm=False,
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
preset(
    "dinoiser_toy",
    base="dinoiser",
    latent_dim=16,
    hidden=128,
    inner=256,
    heads=4,
    encoder_layers=3,
    decoder_layers=3,
    dropout=0.0,
)
preset("dinoiser_iwslt_de_en", base="dinoiser", latent_dim=16, inner=1024, heads=4, dropout=0.2)
preset("dinoiser_wmt16_en_ro", base="dinoiser", latent_dim=64, inner=2048, heads=8, dropout=0.05)
# The WMT14 script of the released code adds 1 to delta^2; the paper does not mention it.
preset("dinoiser_wmt_en_de", base="dinoiser_wmt16_en_ro", dropout=0.1, schedule_modifier="clip_plus_one")
