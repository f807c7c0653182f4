"""The registered criterion of an autoregressive teacher whose logits are an energy, too: see objective/energy.py."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from fairseq.models import FairseqIncrementalDecoder
from fairseq.models.nat import FairseqNATDecoder
from omegaconf import II
from torch import Tensor

from fairseq_diffusion.criterions.diffusion_loss import summed
from fairseq_diffusion.decoding.prefixes import sample_prefixes
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.objective.energy import Divergence, divergence, last, log_sum, not_ended
from fairseq_diffusion.ranges import COUNT, SIZE, WEIGHT, check_ranges
from fairseq_diffusion.translators.chain import VALIDATION

RANGES = {"energy_weight": WEIGHT, "energy_start": (0, 10**9), "energy_samples": SIZE, "energy_last_tokens": COUNT}

NEVER_TOLD = -1  # the number of the update, by a task with a training step of its own


@dataclass
class EArmConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Beside these, the flags of label_smoothed_cross_entropy."""

    energy_weight: float = flag(0.05, "weight of the divergence of the data from the joint model of prefix and word")
    energy_start: int = flag(0, "update from which on it is trained on (in validation it is always measured)")
    energy_samples: int = flag(2, "translations of each source that are sampled from the model, for their prefixes")
    energy_last_tokens: int = flag(0, "take so many positions, the last ones of each target, and no others (0: all)")
    seed: int = II("common.seed")


@register_criterion("e_arm", dataclass=EArmConfig)
class EArm(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy, and beside it the divergence of the data from the joint model; both are sums over
    positions, so that a sentence adds the same in any batch, and ranks and --update-freq do not matter."""

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int,
        report_accuracy: bool,
        energy_weight: float,
        energy_start: int,
        energy_samples: int,
        energy_last_tokens: int,
        seed: int,
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.weight, self.start, self.seed = energy_weight, energy_start, seed
        self.samples, self.last_tokens = energy_samples, energy_last_tokens
        self.eos, self.num_updates = task.target_dictionary.eos(), NEVER_TOLD
        check_task(task, ignore_prefix_size)

    @classmethod
    def build_criterion(cls, cfg: Any, task: Any) -> Any:
        check_ranges(cfg, RANGES)
        return super().build_criterion(cfg, task)

    def set_num_updates(self, num_updates: int) -> None:
        """Called before each training step; in validation the number stays, and is not read."""
        self.num_updates = num_updates

    def forward(self, model: Any, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        check_model(model)
        if model.training and self.num_updates == NEVER_TOLD:
            raise UserError(
                "e_arm has to know the number of the update, which this --task does not tell; pass --task translation "
                "or diffusion_translation"
            )
        with outputs_of(model.encoder, model.decoder) as outputs:
            loss, sample_size, log = super().forward(model, sample)
        if not model.training or self.num_updates >= self.start:
            found = self.divergence(model, sample, *outputs)
            loss = loss + self.weight * found.kl.sum()
            log["loss"] = loss.detach()
            log |= {f"_energy_{name}": part.sum().detach() for name, part in found._asdict().items()}
        return loss, sample_size, log

    def divergence(self, model: Any, sample: dict[str, Any], encoded: Any, output: Any) -> Divergence:
        """From what encoder and decoder made of the data.  Prefixes depend on (seed, update, sentence id) only."""
        net_input, target, logits = sample["net_input"], sample["target"], output[0]
        keys = noise.fold(sample["id"], self.seed, self.num_updates if model.training else VALIDATION)
        keys = noise.fold(keys, noise.Stream.PREFIXES)[:, None]
        keys = noise.fold(keys, torch.arange(self.samples, device=keys.device))
        prefixes = sample_prefixes(model, net_input, keys, target.shape[1], self.padding_idx)
        mask = last(target.ne(self.padding_idx), self.last_tokens)
        sampled = not_ended(prefixes, self.eos) & mask[:, None]
        sampled_log_s = log_sums(model, encoded, prefixes, sampled)
        logit = logits.gather(2, target[..., None])[..., 0]
        return divergence(logit, log_sum(logits.detach()), sampled_log_s, sampled, mask)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """fairseq's, and the divergence as its losses are, in bits a position; the gap is in nats, as logits are."""
        super().reduce_metrics(logging_outputs)
        sums = summed([{k: v for k, v in log.items() if k.startswith("_energy_")} for log in logging_outputs])
        if count := sums.get("_energy_there"):
            metrics.log_scalar("energy", sums["_energy_kl"] / count / math.log(2), count, priority=20, round=3)
            metrics.log_scalar("energy_gap", sums["_energy_gap"] / count, count, priority=30, round=3)


@contextmanager
def outputs_of(*modules: torch.nn.Module) -> Iterator[list[Any]]:
    """A list of what each of the modules returns within it, where each is called once, in this order."""
    outputs: list[Any] = []
    hooks = [module.register_forward_hook(lambda *call: outputs.append(call[-1])) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def log_sums(model: Any, encoded: Any, previous: Tensor, where: Tensor) -> Tensor:
    """log sum exp of the logits behind prefixes previous [B, n, L], where [B, n, L] is true; 0 elsewhere."""
    rows = torch.arange(len(previous), device=previous.device).repeat_interleave(previous.shape[1])
    mine = model.encoder.reorder_encoder_out(encoded, rows)
    features, _ = model.decoder.extract_features(previous.flatten(0, 1), encoder_out=mine)
    found = log_sum(model.decoder.output_layer(features[where.flatten(0, 1)]))
    return found.new_zeros(where.shape).masked_scatter(where, found)


def check_task(task: Any, ignore_prefix_size: int) -> None:
    if ignore_prefix_size:
        raise UserError(
            f"--ignore-prefix-size is {ignore_prefix_size}, but e_arm samples translations from their first word on; "
            "drop it, or pass --criterion label_smoothed_cross_entropy"
        )
    if getattr(task.cfg, "left_pad_target", False):
        raise UserError("e_arm compares positions of targets, which --left-pad-target moves; drop it")


def check_model(model: Any) -> None:
    """It is an encoder and a decoder that predicts each word from those before it, by logits."""
    decoder: Any = getattr(model, "decoder", None)
    left_to_right = isinstance(decoder, FairseqIncrementalDecoder) and not isinstance(decoder, FairseqNATDecoder)
    if not left_to_right or not hasattr(model, "encoder"):
        raise UserError(
            "e_arm trains a model that translates from left to right, as --arch transformer does, and --arch names "
            "another kind; pass --criterion diffusion_loss for a model of this package"
        )
    if decoder.adaptive_softmax is not None:
        raise UserError(
            "e_arm reads the logits of all words, which an adaptive softmax does not have; drop "
            "--adaptive-softmax-cutoff"
        )
