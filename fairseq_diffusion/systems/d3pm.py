"""D3PM: Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al., NeurIPS 2021, arXiv 2107.03006),
with the absorbing kernel, and multinomial diffusion (Hoogeboom et al., NeurIPS 2021, arXiv 2102.05379), with the
uniform one; both conditioned on a source.

A word is kept until step t of T with probability a_t.  Else it is hidden (absorbing: a_t = 1 - t/T, T = 2000), or is
drawn uniformly (multinomial: a_t = cos(pi/2 (t/T + 0.008) / 1.008) over its value at 0, T = 1000).

*Loss.*  With p(y_(t-1) | y_t) the mixture of the posteriors over the estimate p(y_0 | y_t, x), the variational bound

    E_t  T KL(q(y_(t-1) | y_t, y_0) || p(y_(t-1) | y_t)),    at t = 1  -log p(y_0 | y_1)

and for the absorbing kernel a hundredth of the cross-entropy of the hidden words besides.  For the uniform kernel times
are drawn in proportion to the root of their mean squared loss, and weighted back.

*Sampling.*  y_0 is drawn from the estimate and y_s from q(y_s | y_t, y_0), which is that mixture; fewer steps than T
are spread evenly.

Ours against the papers: an encoder of the source, and attention to it; <s> and </s> are given with the length, which is
predicted; the mixture where multinomial diffusion puts the estimate's probabilities into q in y_0's place, which is not
the same.
"""

from fairseq_diffusion.systems import mdlm  # noqa: F401  whose preset is the base of these
from fairseq_diffusion.systems._sizes import sized_diffusion
from fairseq_diffusion.systems.presets import preset

preset(
    "d3pm_absorb",
    base="mdlm",
    diffusion_steps=2000,
    objective="elbo=1,corrupted=0.01",
    time_min=0.0,
    time_sampler="uniform",
    time_features="sinusoid",
)
preset(
    "d3pm_uniform",
    base="d3pm_absorb",
    mask_share=0.0,
    schedule="cosine_root",
    diffusion_steps=1000,
    objective="vlb=1",
    time_sampler="second_moment",
)
sized_diffusion("d3pm", "_absorb")
sized_diffusion("d3pm", "_uniform")
