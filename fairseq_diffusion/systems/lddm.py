"""LDDM, now LADD: Latent-Augmented Discrete Diffusion (arXiv 2510.18114), here conditioned on a source.

Words that are revealed in one step are predicted each by itself, so they may contradict each other.  Latents u, M
vectors that an encoder makes of the whole target, u_0 = Enc(y), carry what they must agree on.

*SEQ.*  Words are those of MDLM, and their denoiser also attends to u_0.  A second, small denoiser learns u_0 given the
source, from u_t = alpha u_0 + sigma eps:

    L = E_t (1 / t) sum over hidden i  -log p(y_i | y_t, u_0, x)  +  E_t || u_0-hat(u_t, x) - u_0 ||^2 / D

Up to an update --latents-start the first sum alone is learnt, with the encoder; the second has no gradient into it.  In
decoding u comes from noise in --latents-steps steps of DDIM, and then words given u, as in MDLM.  Every candidate has a
u of its own.

*FUJI* (`--state joint`).  One network makes both in the same steps: u_t, at the words' time t or at one of its own
(--latents-own-time), stands before the words, which attend to it, and the network's output there is u_0-hat:

    L = E_t (1 / t) sum over hidden i  -log p(y_i | y_t, u_t, x)  +  || u_0-hat(y_t, u_t, x) - u_0 ||^2 / D

Up to update --latents-start the first term alone is learnt, with the encoder, through u_t; from then on the encoder
stays as it is.  Words take the sampler's step, latents one of DDIM.  In training a share of sentences (--latents-drop)
has noise alone for u_t.

What keeps u informative and easy to make: rows of norm sqrt(D); words trained without u for a share of the sentences
(--latents-drop); words of the target hidden from the encoder (--latents-hide); for SEQ --latents-contrast, which tells
two views of one target from other targets, --latents-noise, and --latents-penalty, a weight of |u_0|^2 / 2 in place of
the one norm.  There, in validation, `latents_gain` is what the target's own u is worth to a word
(near 0: words do without), and `latents_made_gain` what four that are made from the source are worth.

Ours against the paper, whose models are language models: the source; an encoder with two layers of its own, learnt
along, in place of a frozen language model; the chain conditions on its own estimate, and its schedule is a cosine.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "lddm_seq",
    base="mdlm",
    latents=16,
    latents_dim=32,
    latents_layers=2,
    latents_drop=0.15,
    latents_hide=0.3,
    latents_contrast=0.1,
    latents_start=30_000,
)
sized_diffusion("lddm_seq", toy={"latents": 4, "latents_start": 800})

preset(
    "lddm_fuji",
    base="mdlm",
    state="joint",
    objective="elbo=1,latents=1",
    latents=16,
    latents_dim=32,
    latents_layers=2,
    latents_drop=0.15,
    latents_hide=0.3,
    latents_start=30_000,
)
sized_diffusion("lddm_fuji", toy={"latents": 4, "latents_start": 800})
