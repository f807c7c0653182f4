"""The part of a task that stops a training whose loss or gradients are not finite."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.optim import AMPOptimizer
from fairseq.tasks.fairseq_task import FairseqTask

from fairseq_diffusion.tasks.checks import not_finite_sentence


class FiniteUpdates(FairseqTask):
    """Keeps the losses of an update, to name the sentences of a batch whose loss is not finite."""

    def begin_update(self) -> None:
        """Called before each update, which may be of several batches."""
        self._losses: list[tuple[torch.Tensor, torch.Tensor]] = []

    def train_step(self, sample: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        loss, sample_size, log = super().train_step(sample, *args, **kwargs)
        self._losses.append((sample["id"], loss.detach()))
        return loss, sample_size, log

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """fairseq has looked at the gradients, and waited for them; a loss can be infinite although they are not."""
        if not isinstance(optimizer, AMPOptimizer) and self._not_finite():
            raise FloatingPointError("the loss is not finite")
        super().optimizer_step(optimizer, model, update_num)

    def _not_finite(self) -> list[int]:
        """Ids of the sentences of this update in batches whose loss is not finite."""
        if not self._losses:  # no memory was left for any
            return []
        finite = torch.stack([loss for _, loss in self._losses]).isfinite().tolist()
        return sorted({i for (ids, _), good in zip(self._losses, finite) if not good for i in ids.tolist()})

    def why_not_finite(self, update: int, error: FloatingPointError) -> str:
        """The sentence that a training ends with."""
        return not_finite_sentence(update, self._not_finite(), str(error))
