"""Non-Autoregressive Neural Machine Translation (Gu et al., ICLR 2018, arXiv 1711.02281), in the form that all later
systems compare with: no fertilities, but a length n as a class, and the source's embeddings copied evenly.

    input_j = E_src[x_round((j - 1) (m - 1) / (n - 1))] + position
    L = -sum_j log p(y_j | x, n) / n - 0.1 log p(n | x)

with label smoothing 0.1; the first is a mean over all words of a batch, the second over its sentences.

Every word is predicted at once and on its own: where several translations are right, the words of one may stand beside
those of another.
"""

from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import OF_FAIRSEQ, preset

preset(
    "nat",
    model="glancing",
    blocks=1,
    alignment="length",
    source_copy="uniform",
    glance_start=0.0,
    glance_end=0.0,
    loss_normaliser="words",
    label_smoothing=0.1,
    length_target="difference",
    length_grad=True,
    length_loss=0.1,
    share_embeddings=True,
    activation="gelu",
    attention_dropout=0.0,
    activation_dropout=0.0,
    hidden=512,
    encoder_layers=6,
    decoder_layers=6,
)
sized("nat")
OF_FAIRSEQ.register("nonautoregressive_transformer")("nat_toy")
