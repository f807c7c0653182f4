"""SED: Self-conditioned Embedding Diffusion for Text Generation (Strudel et al. 2022, arXiv 2211.04236), to translate.

Words are rows E[y] of norm sqrt(D), D = 32, that are never trained: those of another model, or random ones.  With a
little noise they are diffused under a cosine schedule in T = 1000 steps:

    x_0 = E[y] + 0.01 eps_0,   x_t = alpha_t x_0 + sigma_t eps

*Loss*: || x_0-hat - x_0 ||^2 / D of both passes of self-conditioning, c = 0 and then c = stopgrad x_0-hat(x_t, t, 0);
and of a table W that words are read by, which starts as E and learns nothing else:

    -log softmax(W x_0)[y]

*Sampling*: DDPM, 1,000 steps in the paper, with guidance u + w (x_0-hat - u), where u sees neither source nor c;
w around 2.5: --guidance 2.5.

The rows come from an autoregressive Transformer on the same dictionary, narrowed to their D principal components:
--finetune-from-model AR.pt.  Without it they are random, which the paper reports to be far worse.

Ours against the paper: the paper generates and fills in text, with the given words in the canvas itself; here an
encoder reads the source.  Its rows come from a BERT that was trained with a bottleneck of D dimensions; a principal
component is as narrow without a training.  The paper puts blanks between words, since a span that is filled in may be
shorter than its place; here a canvas has room behind the target's end (--canvas-blanks 0.1 puts them there all the
same).  Sizes are those of the other systems here.
"""

from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "sed",
    model="diffusion",
    latent_dim=32,
    embedding_norm="l2",
    embedding_init_std=1.0,
    embedding_noise=0.01,
    freeze="embeddings",
    own_readout=True,
    schedule="cosine",
    diffusion_steps=1000,
    prediction="x_0",
    objective="mse=1,rounding=1",
    loss_normaliser="words",
    self_conditioning="both",
    source_drop=0.1,
    sampler="ddpm",
    grid="respaced",
    length_target="canvas",
    canvas_positions=64,
    latent_map="linear",
    time_features="sinusoid",
    activation="gelu",
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
sized_diffusion("sed", toy={"canvas_positions": 24})
