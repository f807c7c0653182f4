"""The registered criterion of progressive distillation: a student of N steps learns from a teacher of 2N.

The mathematics is in samplers/halving.py.  fairseq-generate builds no criterion: a student decodes without its teacher.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from fairseq_diffusion.criterions.diffusion_loss import DiffusionLoss
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.objective.terms import Objective
from fairseq_diffusion.samplers.halving import Halving
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.translators.diffusion import DiffusionTranslator
from fairseq_diffusion.translators.diffusion_options import check_prediction
from fairseq_diffusion.translators.distillation import DistillationTargets

# What a state and a time mean must be alike for student and teacher; and what the shapes of weights do not show.
ALIKE = (
    *(
        "schedule",
        "schedule_modifier",
        "noise_factor",
        "diffusion_steps",
        "embedding_norm",
        "prediction",
        "self_conditioning_on",
    ),
    *("heads", "activation", "pre_norm", "scale_embeddings", "length_target"),
)


@dataclass
class ProgressiveDistillationConfig(FairseqDataclass):
    """Beside these, the student starts as its teacher (--finetune-from-model) and keeps its embeddings (--freeze)."""

    teacher: str = flag("", "checkpoint of the teacher, the one that --finetune-from-model names")
    student_steps: int = flag(8, "steps N of the student, half as many as its teacher takes")
    anchor_loss: float = flag(0.02, "weight of the cross-entropy of the data's words beside the teacher's estimate")


@register_criterion("progressive_distillation", dataclass=ProgressiveDistillationConfig)
class ProgressiveDistillation(DiffusionLoss):
    """Losses and log are the model's, which gets its teacher at the first batch."""

    def __init__(self, task: Any, teacher: str, student_steps: int, anchor_loss: float):
        super().__init__(task)
        # Out of sight in a tuple: fairseq would train, save and send round a criterion that has parameters.
        self.teacher = (load_teacher(teacher, task),)
        self.student_steps, self.anchor_loss = student_steps, anchor_loss

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict]:
        if getattr(getattr(model, "translator", None), "targets", None) is None:
            self._set_teacher(model)
        return super().forward(model, sample, reduce)

    def _set_teacher(self, model: Any) -> None:
        """Have `model` learn from the teacher, which moves to where it is."""
        (teacher,) = self.teacher
        like = next(model.parameters())
        teacher.to(like.device, like.dtype)
        check_student(model, teacher)
        schedule = teacher.translator.schedule
        halving = Halving(schedule, self.student_steps, model.cfg.decode_noise_factor, like.device)
        objective = Objective(f"mse=1,anchor={self.anchor_loss}", str(model.cfg.loss_normaliser))
        model.translator.set_teacher(DistillationTargets(halving, teacher.translator, objective))


def load_teacher(path: str, task: Any) -> Any:
    """The diffusion model at `path`, which nothing will train."""
    if not path:
        raise UserError("progressive_distillation needs a teacher; pass --teacher CHECKPOINT.pt")
    if not Path(path).is_file():
        raise UserError(f"--teacher {path} is no file; pass the checkpoint of the model whose steps are to be halved")
    if task.cfg.use_ema:
        raise UserError(
            "--use-ema would take the teacher's averaged weights, but --finetune-from-model takes its last ones; "
            "drop --use-ema"
        )
    own = getattr(task, "sequence_generator", None)  # which --eval-bleu makes of whatever was built last
    (model,), _ = checkpoint_utils.load_model_ensemble([path], task=task)
    if own is not None:
        task.sequence_generator = own
    if not is_diffusion(model):
        raise UserError(
            f"--teacher {path} is no diffusion model, so it has no steps to halve; pass one that was trained with an "
            "architecture that denoises step by step"
        )
    return model.eval().requires_grad_(False)


def is_diffusion(model: Any) -> bool:
    return isinstance(getattr(model, "translator", None), DiffusionTranslator)


def check_student(model: Any, teacher: Any) -> None:
    """`model` can learn from `teacher`."""
    if not is_diffusion(model):
        raise UserError(
            "progressive_distillation halves the steps of a diffusion model, but --arch names another kind; pass the "
            "teacher's, or --criterion diffusion_loss"
        )
    if model.translator.state.family != "gaussian":
        raise UserError(
            "progressive_distillation halves the steps of Gaussian noise, and this model's states are words; pass "
            "--criterion diffusion_loss"
        )
    if model.translator.schedule.modifier.places:
        raise UserError(
            "progressive_distillation takes all positions to have one level of noise, but --schedule-modifier position "
            "gives each its own; pass --criterion diffusion_loss"
        )
    if model.cfg.soft_absorb:
        raise UserError(
            "progressive_distillation takes noise to be around 0, but with --soft-absorb it is around a learned "
            "vector; pass --criterion diffusion_loss"
        )
    if model.cfg.word_time_spread:
        raise UserError(
            f"--word-time-spread is {model.cfg.word_time_spread}, but progressive_distillation trains on the times of "
            "decoding, which all words have; drop it"
        )
    if model.cfg.time_min:
        raise UserError("progressive_distillation trains on the times of decoding; drop --time-min")
    if model.cfg.length_training == "only":
        raise UserError("--length-training only trains no denoiser; drop it, or pass --criterion diffusion_loss")
    check_prediction(str(model.cfg.prediction), model.cfg.noise_factor, model.cfg.decode_noise_factor)
    check_alike(model, teacher)
    check_embeddings(model.translator.state, teacher.translator.state)


def check_alike(model: Any, teacher: Any) -> None:
    """Both are of one size, and mean the same by a state and a time."""
    sizes, theirs = (
        {name: tuple(p.shape) for name, p in parts.named_parameters()}
        for parts in (model.translator, teacher.translator)
    )
    for name in sorted(sizes.keys() | theirs.keys()):
        if sizes.get(name) != theirs.get(name):
            ours, other = (each.get(name, "missing") for each in (sizes, theirs))
            raise UserError(
                f"the student's {name} is {ours}, but the teacher's {other}; pass the --arch and sizes that the "
                "teacher was trained with"
            )
    for field in ALIKE:
        ours, other = str(getattr(model.cfg, field)), str(getattr(teacher.cfg, field))
        if ours != other:
            name = "--" + field.replace("_", "-")
            raise UserError(f"the student has {name} {ours}, but its teacher {other}; pass {name} {other}")


def check_embeddings(state: EmbeddingState, teacher: EmbeddingState) -> None:
    """The teacher's estimates mean the same to the student, now and later."""
    if any(parameter.requires_grad for parameter in state.parameters() if parameter is not state.reader):
        raise UserError(
            "the student's embeddings are trained, so that the teacher's estimates would soon mean nothing to it; pass "
            "--freeze embeddings, or --freeze encoder,embeddings"
        )
    if not torch.equal(state.table(), teacher.table()):
        raise UserError(
            "the student's embeddings are not the teacher's; start as the teacher, with --finetune-from-model and the "
            "path that --teacher names, in a --save-dir that holds no other training"
        )
