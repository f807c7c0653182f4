"""SeqDiffuSeq: Text Diffusion Model with Encoder-Decoder Transformers for Sequence-to-Sequence Generation (Yuan et al.,
NAACL 2024, arXiv 2212.10325).

Words become rows E[y], learned and shared by both sides, with a little noise, x_0 = E[y] + 0.1 eps_0; more noise is
variance preserving in T = 2000 steps:

    abar(s) = 1 - sqrt(s + 1e-4),   q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)

*Adaptive noise schedule.*  Each position i of the canvas has a table abar[t, i] of its own.  During training, the mean
errors L[k, i] = || x_0-hat - x_0 ||^2 / D in 100 bins k of time are collected; every U = 20,000 updates, from the third
such period on, the table becomes that at which the error rises evenly: abar[t, i] is read off the line through the
points (L[k, i], mean of abar[., i] in bin k), at the error (1 - t / T) min + (t / T) max.

*Loss*, uniform in t:

    || x_0-hat(x_t, t, c) - x_0 ||^2 / D  -  log softmax(x_0 E^T)[y]  +  || sqrt(abar_T) x_0 ||^2 / D

*Self-conditioning* in half of the updates: c = stopgrad x_0-hat(x_t, t, 0), else 0.

*Network*: tanh maps into and out of a Transformer of width 512; the time is added to the decoder's input.

*Sampling*: DDPM with each position's own levels, 2,000 steps in the paper, on a canvas of 64 positions of which what
stands behind the first </s> is dropped.

Ours against the paper: x_0 is the target at the first of the steps, too, where Diffusion-LM has E[y]; posterior
variances are those of each position (the released code reads them from a flattened table); what is collected is summed
over ranks; fewer steps are evenly spaced ones of the 2,000; the canvas is filled with </s>, which is also its end, and
not with padding; layers start from this package's initialisation.
"""

from fairseq_diffusion.systems._sizes import DIFFUSION_LM, sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "seqdiffuseq",
    **DIFFUSION_LM,
    schedule_modifier="position",
    schedule_update=20_000,
    self_conditioning="random",
    encoder_layers=6,
    decoder_layers=6,
    dropout=0.3,
)
PAPER = {"inner": 2048, "heads": 8, "dropout": 0.3}  # IWSLT14 and WMT14 alike
sized_diffusion(
    "seqdiffuseq",
    toy={"latent_dim": 64, "canvas_positions": 24, "schedule_update": 200},
    iwslt_de_en=PAPER,
    wmt_en_de=PAPER,
    wmt16_en_ro=PAPER,
)
