"""The registered model: a Translator that fairseq can build, train and save."""

from __future__ import annotations

from typing import Any, Callable

import torch
from fairseq.models import register_model
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.models.base import ParallelModel, enter_architectures, fill_up
from fairseq_diffusion.models.build import PARTS, build_translator, check_joined, parse_freeze
from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.models.means import means_of
from fairseq_diffusion.process.time_sampling import coin
from fairseq_diffusion.translators.diffusion import Lessons, Translator


@register_model("diffusion", dataclass=DiffusionConfig)
class DiffusionModel(ParallelModel):
    """Turns fairseq's batches into the translator's arguments, and keeps its schedule up to date."""

    kind = "diffusion"
    translator: Translator

    def __init__(self, cfg: DiffusionConfig, translator: Translator, bos: int, pad: int):
        super().__init__(cfg, translator, bos, pad)
        self._adapted_at = -1  # --update-freq announces the same update several times
        self.lessons: Callable[[Tensor, Tensor, Tensor | None], Lessons] | None = None
        self._freeze(str(cfg.length_training), parse_freeze(cfg.freeze))

    @classmethod
    def build_model(cls, cfg: DiffusionConfig, task: Any) -> DiffusionModel:
        fill_up(cfg, DiffusionConfig)
        source, target = task.source_dictionary, task.target_dictionary
        if cfg.share_embeddings:
            check_joined(source, target)
        return cls(cfg, build_translator(cfg, len(source), len(target)), target.bos(), target.pad())

    def _freeze(self, length_training: str, parts: list[str]) -> None:
        """Frozen parameters stay out of the optimiser, so that weight decay cannot shrink them either."""
        if length_training == "only":
            self.translator.requires_grad_(False)
        self.translator.length.requires_grad_(length_training != "off")
        for part in parts:
            getattr(self.translator, PARTS[part]).requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError(
                f"--freeze {self.cfg.freeze} and --length-training {length_training} leave nothing to train; name "
                "fewer parts"
            )

    def learn_from(self, lessons: Callable[[Tensor, Tensor, Tensor | None], Lessons]) -> None:
        """From now on a teacher's word stands for the data's: `lessons` makes, of source tokens [B, S], the target's
        mask [B, L] and which sources are dropped [B], what a batch is to learn."""
        self.lessons = lessons

    def set_num_updates(self, num_updates: int) -> None:
        """Adapt the schedule to the embeddings when it is due."""
        super().set_num_updates(num_updates)
        due = num_updates % self.cfg.schedule_update == 0 and num_updates != self._adapted_at
        if self.training and due:
            self.translator.schedule.update(self.translator.state.table().detach())
            self._adapted_at = num_updates

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Other embeddings: what was adapted to the old ones at this update is to be done again."""
        self._adapted_at = -1
        return super().load_state_dict(*args, **kwargs)

    def _recondition(self) -> bool:
        """How the coin of self-conditioning falls at this moment, alike on all ranks; in validation on heads."""
        p = self.cfg.self_conditioning_p if self.training else 1.0
        return coin(noise.fold(torch.tensor(self.cfg.seed), self.moment), p)

    def losses(
        self, src_tokens: Tensor, target: Tensor, mask: Tensor, keys: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
        parts, dropped = self.translator, self.translator.dropped(keys)
        source = self.encode(src_tokens, dropped)
        lessons = self.lessons and self.lessons(src_tokens, mask, dropped)
        objective = lessons.objective if lessons else parts.objective
        if self.cfg.length_training == "only":
            losses = parts.length_losses(source, mask)
        elif lessons:
            losses = parts.student_losses(source, target, mask, keys, self._recondition(), lessons)
        else:
            losses = parts.losses(source, target, mask, keys, self._recondition())
        length = 0.0 if self.cfg.length_training == "off" else self.cfg.length_loss
        watched = {
            "sample_size": objective.sample_size(mask),
            "means": means_of(losses),
            "state": dict(parts.schedule.modifier.named_buffers()),
        }
        return losses.terms, {**objective.weights, "length": length}, watched


enter_architectures("diffusion")
