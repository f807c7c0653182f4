"""DiffuSeq: Sequence to Sequence Text Generation with Diffusion Models (Gong et al., ICLR 2023, arXiv 2210.08933), and
its second version: DiffuSeq-v2: Bridging Discrete and Continuous Text Spaces for Accelerated Seq2Seq Diffusion Models
(Gong et al., Findings of EMNLP 2023, arXiv 2310.05793).

Source and target stand side by side in one stack of layers, and noise falls on the target alone (*partial noising*);
the source is clean at every step. Words become x_0 = E[y] + 0.1 eps_0, and noise is variance preserving in T = 2000
steps:

    abar(s) = 1 - sqrt(s + 1e-4),   q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)

*Loss*, with t drawn in proportion to the root of the mean squared loss that it had, and weighted back:

    || x_0-hat(x_t, t) - x_0 ||^2 / D  -  log softmax(x_0 E^T)[y]  +  || sqrt(abar_T) x_0 ||^2 / D

*Sampling*: DDPM, 2,000 steps in the paper, of which any number may be taken; --clamp moves estimates to words. Ten
noises and MBR by BLEU: --noise-beam 10 --selection mbr.

*Version 2* has a learned vector c in the middle of the noise, which also stands in for words at random, and one more
loss, 0.01 ||c||; with it a solver of second order takes 2 to 20 steps (--sampler dpmpp_2m, on x - c):

    x_t = sqrt(abar_t) (x_0 - c) + c + sqrt(1 - abar_t) eps,   but c with probability 0.5 sqrt(1 - abar_t)

Ours against the papers: the target has a canvas of its own, filled with </s>, instead of one that both share; losses
are of the target alone; source and target have positions of their own, and the source's words a linear map of their
own; layers begin at random; x_0 is the target at the first of the steps, too, where Diffusion-LM has E[y]; version 2
absorbs no words anew in its ancestral sampler; the papers have no translation, so that sizes are ours: twice the layers
of a decoder, and none in the encoder.
"""

from fairseq_diffusion.systems._sizes import DIFFUSION_LM, sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "diffuseq",
    **DIFFUSION_LM,
    conditioning="prefix",
    time_sampler="second_moment",
    self_conditioning="none",
    encoder_layers=0,
    decoder_layers=12,
)
preset(
    "diffuseq_v2",
    base="diffuseq",
    soft_absorb=0.5,
    objective="mse=1,rounding=1,prior=1,center=0.01",
    sampler="dpmpp_2m",
)
for version in ("diffuseq", "diffuseq_v2"):
    toy = {"latent_dim": 64, "canvas_positions": 24, "encoder_layers": 0, "decoder_layers": 6}
    sized_diffusion(version, toy=toy)
