"""Zero-Shot Translation using Diffusion Models (Nachmani and Dovrat 2021, arXiv 2111.01471): multinomial diffusion of
the target, with one model for many pairs of languages, and translation between pairs that it was not trained on.

A tag in front of each source, such as <2de>, says into which language to translate.  One dictionary serves both sides,
since most languages stand on both.  Until step t of T = 1000 a word is kept with probability a_t, else it is any of the
K words of all languages, a tag never:

    q(y_t | y_0) = a_t [y_t = y_0] + (1 - a_t) / K
    a_t = sqrt(f(t) / f(0)),   f(t) = cos^2(pi/2 (t/T + 0.008) / 1.008)

*Loss.*  The variational bound, with p(y_(t-1) | y_t) the mixture of the posteriors over the estimate p(y_0 | y_t, x):

    E_t  T KL(q(y_(t-1) | y_t, y_0) || p(y_(t-1) | y_t)),    at t = 1  -log p(y_0 | y_1)

Times are drawn in proportion to the root of their mean squared loss, and weighted back; features of the time are added
to the decoder's input.

*Sampling.*  From uniform noise, y_0 is drawn from the estimate and y_s from q(y_s | y_t, y_0), which is that mixture.

Kernel, loss and sampler are those of multinomial diffusion (d3pm.py).  What this system adds: entries of the dictionary
of the form <2...> are tags, which are never noise and never written; and embeddings are shared by both sides in every
size, the toy's, too.

Ours against the paper, of which we know its abstract and introduction: T, sizes, learning rate and the form of the tags
are ours; <s> and </s> are given with the length, which is predicted from source and tag.
"""

from fairseq_diffusion.systems import d3pm  # noqa: F401  whose preset is the base of this
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset("ddpm_nmt", base="d3pm_uniform", tags="<2*>")
sized_diffusion("ddpm_nmt", toy={"share_embeddings": True})
