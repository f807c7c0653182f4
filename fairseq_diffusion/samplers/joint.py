"""Steps of words, and beside them steps of latents, by one estimate of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.network.joint import Joint
from fairseq_diffusion.samplers.gaussian import SAMPLERS, GaussianStep
from fairseq_diffusion.samplers.grid import Grid, on_host
from fairseq_diffusion.samplers.loop import Batch, Step


class JointStep(NamedTuple):
    """To a time t of both: words by the sampler's step, latents by one of DDIM."""

    words: Step
    latents: GaussianStep
    t: float

    @property
    def draws(self) -> bool:
        return self.words.draws

    def __call__(self, batch: Batch, s_t: Any, estimate: Any, previous: Any, keys: Tensor | None) -> Any:
        words = self.words(batch, s_t.words, estimate.words, previous.words, keys)
        latents = self.latents.apply(s_t.latents, estimate.latents, previous.latents, None)
        return Joint(words, latents, torch.full_like(s_t.t, self.t))


def joint_steps(words: Sequence[Step], state: Any, grid: Grid) -> list[JointStep]:
    """Each step of words over the grid with that of the latents over the same times."""
    level = on_host(state.schedule, grid.t, None)
    latents = SAMPLERS["ddim"].steps(Grid(grid.t, grid.t, level, level, state.schedule))
    return [JointStep(*step) for step in zip(words, latents, grid.t[1:].tolist())]
