"""SUNDAE: Step-unrolled Denoising Autoencoders for Text Generation (Savinov et al., ICLR 2022, arXiv 2112.06749).

Each word of a target is replaced, with a probability r ~ U(0, 1) drawn for the sentence, by one drawn uniformly; the
network does not see r.

*Loss.*  The cross-entropy of all words, on the corrupted sentence y_c and on a sentence drawn from the network's own
estimate of it, without a gradient through the drawing:

    L = (CE(p(. | y_c, x), y) + CE(p(. | y', x), y)) / 2,     y' ~ p(. | y_c, x)

*Sampling.*  From words drawn uniformly, every step draws all words anew from the estimate at a low temperature
(--word-temperature 0.3; 0 takes the most probable), until nothing changes (--stop-stable 1) or steps are over.

Ours against the paper: the length is a class of its difference to the source's length, not of half the length, and has
no embedding of its own before the source; the network is the one of the other systems here.
"""

from fairseq_diffusion.systems.presets import preset

preset(
    "sundae",
    model="diffusion",
    state="tokens",
    mask_share=0.0,
    schedule="log_linear",
    objective="anchor=1",
    unroll=2,
    time_features="none",
    loss_normaliser="words",
    self_conditioning="none",
    share_embeddings=True,
    attention_dropout=0.0,
    activation_dropout=0.0,
    sampler="resample",
    length_target="difference",
    length_grad=False,
    activation="gelu",
    pre_norm=False,
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
preset(
    "sundae_toy",
    base="sundae",
    share_embeddings=False,
    hidden=128,
    inner=256,
    heads=4,
    encoder_layers=3,
    decoder_layers=3,
    dropout=0.0,
)
preset("sundae_iwslt_de_en", base="sundae", inner=1024, heads=4, dropout=0.3)
preset("sundae_wmt_en_de", base="sundae", inner=2048, heads=8, dropout=0.1)
preset("sundae_wmt16_en_ro", base="sundae_wmt_en_de")
