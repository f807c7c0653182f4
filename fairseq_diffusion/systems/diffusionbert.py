"""DiffusionBERT: Improving Generative Masked Language Models with Diffusion Models (He et al., ACL 2023, arXiv
2211.15029): its noise schedule, from scratch, with an encoder of the source.

By step t of T = 2000 a word is kept with probability a_t = 1 - t / T but for the *spindle*: words that say more are
hidden earlier, and so revealed later.  With the information H(w) = -log frequency(w), and its mean over the sentence,

    a_t(w) = 1 - t / T - 0.3 sin(pi t / T) (1 - mean H / H(w)),   between 0 and 1

so that the information kept, and not the number of words, falls in a straight line.

*Loss.*  The cross-entropy of the hidden words, with the rate at which each is revealed, and a little without:

    E_t  T  sum over hidden i of  ((a_(t-1)(y_i) - a_t(y_i)) / (1 - a_t(y_i)) + 0.0003) (-log p(y_i | y_t, x))

That is not all of a bound: when a word is shown says something about it, too, and this part is left out.

*Sampling.*  A word y_0 drawn from the estimate of a hidden one is shown with probability (a_s(y_0) - a_t(y_0)) /
(1 - a_t(y_0)), the mean H being that of the sentence drawn.  The paper takes every tenth step, and the 15 most probable
words (--top-k 15).

Ours against the paper: no pretrained BERT, which is its point (an AR model's weights may be the first ones), and so a
network that sees the time (from scratch the paper finds that better); an encoder of the source, and attention to it;
<s> and </s> are given with the length, which is predicted; the exact step (the released code takes that of 1 - t / T);
the part of the bound that is left out; --top-k among words (the code: among words and the mask, in the posterior);
frequencies are those of the dictionary, which with a joined one count both languages.
"""

from fairseq_diffusion.systems import d3pm  # noqa: F401  whose preset is the base of this
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset("diffusionbert", base="d3pm_absorb", schedule_modifier="spindle", objective="elbo=1,corrupted=0.6")
sized_diffusion("diffusionbert")
