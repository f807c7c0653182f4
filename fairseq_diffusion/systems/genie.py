"""GENIE: Text Generation with Diffusion Language Models: A Pre-training Approach with Continuous Paragraph Denoise (Lin
et al., ICML 2023, arXiv 2212.11685).

An encoder reads the source, and a decoder with attention to it denoises vectors of words, x_0 = E[y] + 0.1 eps_0, in
T = 2000 steps of variance-preserving noise:

    abar(s) = 1 - sqrt(s + 1e-4),   q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)

*Loss*, with t drawn in proportion to the root of the mean squared loss that it had, and weighted back:

    || x_0-hat(x_t, t) - x_0 ||^2 / D  -  log softmax(x_0 E^T)[y]  +  || sqrt(abar_T) x_0 ||^2 / D

*Continuous paragraph denoise*.  Before the task itself the same model is trained on text of the target's language: of a
paragraph of up to 512 tokens, one span of 30 per cent is the target, and the paragraph with <span> in its place is the
source.  `fairseq-diffusion spans` makes such data; --finetune-from-model goes on from there.

*Sampling*: DDPM, 2,000 steps in the paper, of which any number may be taken, with --clamp; ten noises.

Ours against the paper: its encoder and the vectors start from BERT, here from nothing, or from an AR model's
(--finetune-from-model); feed-forward layers have no gates; padding is hidden from attention (the released code accepts
its masks and does not use them); x_0 is the target at the first of the steps, too, where Diffusion-LM has E[y]; the
canvas is filled with </s>.  The released code chooses, of several noises, the one nearest to the reference; here they
are compared with each other: --noise-beam 10 --selection mbr.
"""

from fairseq_diffusion.systems._sizes import DIFFUSION_LM, sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "genie",
    **DIFFUSION_LM,
    time_sampler="second_moment",
    self_conditioning="none",
    pre_norm=True,
    encoder_layers=6,
    decoder_layers=6,
)
sized_diffusion("genie", toy={"latent_dim": 64, "canvas_positions": 24})
