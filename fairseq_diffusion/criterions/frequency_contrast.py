"""The registered criterion of an autoregressive model with frequency-aware contrast beside its cross-entropy."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from fairseq_diffusion.criterions.diffusion_loss import summed
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.models.contrast import contrast_of
from fairseq_diffusion.objective.contrast import CONTRAST
from fairseq_diffusion.translators.chain import VALIDATION

PLAIN = "label_smoothed_cross_entropy"


@dataclass
class FrequencyContrastConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """What there is beside fairseq's own flags."""

    frequency_contrast: float = flag(0.1, "weight of a contrast that keeps the states of different words apart")
    contrast_temperature: float = flag(0.1, "temperature of the contrast, 0.03 or more")
    contrast_dropout: float = flag(0.1, "dropout of a state that makes a second view of it, for the contrast")


@register_criterion(f"{PLAIN}_with_frequency_contrast", dataclass=FrequencyContrastConfig)
class FrequencyContrastCriterion(LabelSmoothedCrossEntropyCriterion):
    """fairseq's label-smoothed cross-entropy, plus the contrast of the decoder's last states, each with the word that
    is to be predicted from it.  The contrast is a mean over what one rank has at once."""

    def __init__(self, task: Any, cfg: Any):
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        contrast, words = contrast_of(cfg), task.target_dictionary
        if contrast is None:
            raise UserError(
                f"--frequency-contrast is {cfg.frequency_contrast}, which leaves fairseq's own criterion; pass a "
                f"number above 0, or --criterion {PLAIN}"
            )
        special = torch.tensor([words.bos(), words.pad(), words.eos()])
        contrast.count_words(torch.tensor(words.count).index_fill(0, special, -1))
        self.contrast = contrast

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        watched = WithStates(model)
        loss, size, log = super().forward(watched, sample, reduce)
        states, target = (x[:, self.ignore_prefix_size :] for x in (watched.states, sample["target"]))
        update = torch.initial_seed() if self.training else VALIDATION  # fairseq's seed plus the number of the update
        keys = noise.fold(sample["id"], update, Stream.CONTRAST)
        contrast = size * self.contrast(states, target, target.ne(self.padding_idx), keys).sum()
        loss = loss + self.contrast.weight * contrast
        return loss, size, {**log, "loss": loss.detach(), CONTRAST: contrast.detach()}

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """The contrast to base 2, too, as fairseq logs losses."""
        super().reduce_metrics(logging_outputs)
        sums = summed(logging_outputs)
        metrics.log_scalar(CONTRAST, sums[CONTRAST] / sums["sample_size"] / math.log(2), sums["sample_size"], round=3)


class WithStates:
    """A model that is called once, and keeps the states that its output is read from."""

    states: Tensor  # [B, L, h]

    def __init__(self, model: Any):
        """`model` may be wrapped for several ranks; it is called as it is, which is how gradients are shared."""
        self._called = self._model = model
        while hasattr(self._model, "module"):
            self._model = self._model.module
        check_has_states(self._model)

    def __call__(self, **batch: Any) -> tuple[Tensor, Any]:
        self.states, extra = self._called(**batch, features_only=True)
        return self._model.output_layer(self.states), extra

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def check_has_states(model: Any) -> None:
    """Refuse a model that gives no states in place of its output."""
    encodes = isinstance(model, FairseqEncoderDecoderModel)
    if not encodes or "features_only" not in inspect.signature(model.decoder.forward).parameters:
        raise UserError(
            f"--criterion {PLAIN}_with_frequency_contrast is for fairseq's autoregressive Transformers, whose decoder "
            f"gives its last states (features_only), but this model is a {type(model).__name__}; pass --arch "
            f"transformer or one of its sizes, --criterion {PLAIN}, or for a model of ours --criterion diffusion_loss "
            "with --frequency-contrast"
        )
