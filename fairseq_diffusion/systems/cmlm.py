"""CMLM: Mask-Predict, Parallel Decoding of Conditional Masked Language Models (Ghazvininejad et al., EMNLP 2019,
arXiv 1904.09324).

Training hides k ~ U{1 .. n} random words of n and shows the rest; the loss is the mean of -log p(y_i | shown, x) over
all hidden words of a batch.

Decoding starts from all hidden and takes N = 10 passes; behind pass p the floor(n (N - p) / N) words of lowest
probability are hidden again, and those shown keep word and probability.  5 lengths are tried in parallel
(--iter-decode-with-beam 5).

Ours against the released code: the length is a class from the mean encoder state, not from a token of its own; layers
start from this package's initialisation.
"""

from fairseq_diffusion.systems import vanilla_nat  # noqa: F401  whose presets are the base of these
from fairseq_diffusion.systems._sizes import sized
from fairseq_diffusion.systems.presets import OF_FAIRSEQ, preset

preset("cmlm", base="nat", source_copy="none", glance_count="uniform", passes=10)
sized("cmlm")
OF_FAIRSEQ.register("cmlm_transformer")("cmlm_toy")
