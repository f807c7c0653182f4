"""The bound on -log p(y | x) of given translations by a diffusion translator.  torch only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fairseq_diffusion.objective.chain_bound import bound_for, estimated
from fairseq_diffusion.objective.likelihood import Likelihood, check_samples
from fairseq_diffusion.translators.batch import Source

if TYPE_CHECKING:
    from fairseq_diffusion.translators.diffusion import DiffusionTranslator


def check_chain(translator: DiffusionTranslator, samples: int, steps: int | None) -> None:
    """Refuse what there is no bound of."""
    check_samples(samples)
    bound_for(translator.state, translator.schedule, steps)


@torch.no_grad()
def chain_likelihood(
    translator: DiffusionTranslator,
    source: Source,
    target: Tensor,
    mask: Tensor,
    keys: Tensor,
    samples: int,
    steps: int | None,
) -> Likelihood:
    """-log p(length | x) and the bound of the chain at that length; arguments as of `Translator.likelihood`.

    A canvas has </s> in what is left of it.  Estimates are made without an earlier one, and targets are neither
    smoothed nor drawn anew.
    """
    check_chain(translator, samples, steps)
    given = translator.length_nll(source, mask)
    target, mask = translator.filled(source, target, mask)

    def denoise(s_t: Tensor, t: Tensor) -> Tensor:
        rows = mask.repeat_interleave(len(s_t) // len(mask), 0)
        return translator.denoise(s_t, t, translator.state.blank(s_t), rows, source)

    bound = bound_for(translator.state, translator.schedule, steps)
    nats, error = estimated(bound, denoise, target, mask, keys, samples)
    return Likelihood(given + nats, error, exact=False)
