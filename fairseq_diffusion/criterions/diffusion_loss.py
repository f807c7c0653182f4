"""The registered criterion: passes the model's losses on to fairseq and logs its parts."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from fairseq_diffusion.translators.batch import Losses

GIVEN = ("durations",)  # what a batch may have besides for the model


def summed(logging_outputs: list[dict[str, Any]]) -> dict[str, float]:
    """Sums over outputs as plain numbers; each output's tensors come from the device together."""
    sums: dict[str, float] = {}
    for log in logging_outputs:
        tensors = {key: value.double() for key, value in log.items() if torch.is_tensor(value)}
        numbers = torch.stack(list(tensors.values())).tolist() if tensors else []
        for key, value in {**log, **dict(zip(tensors, numbers))}.items():
            sums[key] = sums.get(key, 0) + value
    return sums


@register_criterion("diffusion_loss", dataclass=FairseqDataclass)
class DiffusionLoss(FairseqCriterion):
    """The loss itself is the model's, which returns a translators.batch.Losses: see the page of the system in
    fairseq_diffusion/systems."""

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        given = {name: sample[name] for name in GIVEN if name in sample}
        tokens = sample["net_input"]["src_tokens"]
        losses: Losses = model(src_tokens=tokens, target=sample["target"], ids=sample["id"], **given)
        log = {
            "loss": losses.total.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": len(sample["id"]),
            "sample_size": losses.sample_size,
            **{f"_term_{name}": share.sum() for name, share in losses.terms.items()},
            **{f"_sum_{name}": mean.total for name, mean in losses.means.items()},
            **{f"_count_{name}": mean.number for name, mean in losses.means.items()},
            **{f"_state_{name}": value * len(sample["id"]) for name, value in losses.state.items()},
        }
        return losses.total, losses.sample_size, log

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Means over all ranks and --update-freq; losses in nats."""
        sums = summed(logging_outputs)
        size, sentences = max(sums["sample_size"], 1), sums["nsentences"]  # 0: sentences without a word
        metrics.log_scalar("loss", sums["loss"] / size, size, round=4)
        for key in sorted(sums):
            prefix, _, name = key.lstrip("_").partition("_")
            if not key.startswith("_"):
                continue
            if prefix == "term":
                metrics.log_scalar(name, sums[key] / size, size, priority=20, round=4)
            elif prefix == "state":
                metrics.log_scalar(name, sums[key] / sentences, sentences, priority=30, round=4)
            elif prefix == "count" and sums[key] > 0:
                metrics.log_scalar(name, sums[f"_sum_{name}"] / sums[key], sums[key], priority=40, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
