"""A student learns from a teacher that fairseq does not know of; what it cannot learn from is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.module_proxy_wrapper import ModuleProxyWrapper
from support import TINY, TINY_BLOCKS, TINY_WORDS, call, different, generate, hypotheses, read, training

import fairseq_diffusion
from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError

FROZEN = "--freeze encoder,embeddings"
TRUE_TIMES = "--sampler ddim --grid time --early-stop 0"
QUIET = "--no-epoch-checkpoints --dropout 0"


def student(data: Path, save_dir: Path, teacher: Any, flags: str, **kind: Any) -> list[Any]:
    """Arguments of a training that starts as its teacher."""
    own = f"--criterion progressive_distillation --finetune-from-model {teacher} --teacher {teacher} {flags}"
    return training(data, save_dir, own, **kind)


def parts(arguments: list[Any]) -> tuple[Any, Any, Any]:
    """Task, model and criterion as fairseq-train makes them; the model's weights are nobody's."""
    fairseq_diffusion.load()
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), [str(argument) for argument in arguments])
    )
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def taught(data: Path, teacher: Path, flags: str = "") -> tuple[Any, Any, dict[str, Any]]:
    """Model and criterion as they stand behind --finetune-from-model, and a batch."""
    task, model, criterion = parts(student(data, data, teacher, f"{FROZEN} --dropout 0 {flags}"))
    model.load_state_dict(read(teacher)["model"])
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    return model, criterion, dataset.collater([dataset[i] for i in range(6)])


# -- what is learnt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["", "--self-conditioning random", "--source-drop 0.0 --time-sampler stratified"])
def test_the_loss_is_the_distance_to_the_teacher_and_the_words(data: Path, checkpoint: Path, flags: str):
    model, criterion, batch = taught(data, checkpoint, f"--student-steps 3 --anchor-loss 0.25 {flags}")
    loss, size, log = criterion(model, batch)
    expected = log["_term_mse"] + 0.25 * log["_term_anchor"] + 0.1 * log["_term_length"]
    torch.testing.assert_close(loss, expected)
    assert size == 6 and log["_term_mse"] > 0
    assert torch.equal(loss, criterion(model, batch)[0])  # noise is that of the batch's sentences


def test_a_student_of_one_step_learns_two_and_nothing_else_moves(data: Path, checkpoint: Path, tmp_path: Path):
    """A hundred updates take it most of the way; what is frozen is not even decayed."""
    log = tmp_path / "log"
    flags = f"{FROZEN} {TRUE_TIMES} {QUIET} --student-steps 1 --anchor-loss 0 --weight-decay 0.1 --max-update 100"
    flags += f" --lr 3e-3 --log-format json --validate-interval-updates 50 --log-file {log}"
    call("train", *student(data, tmp_path / "save", checkpoint, flags))
    seen = [float(value) for value in re.findall(r'"valid_mse": "([\d.]+)"', log.read_text())]
    model, criterion, batch = taught(data, checkpoint, "--student-steps 1")
    model.eval()
    begun = criterion(model, batch)[2]["_term_mse"] / 6
    assert seen[-1] < 0.5 * begun
    trained, start = (read(path)["model"] for path in (tmp_path / "save/checkpoint_last.pt", checkpoint))
    changed = [key for key in different(start, trained) if ".schedule." not in key]
    assert {key.split(".")[1] for key in changed} == {"denoiser", "length"}


def test_a_student_decodes_and_goes_on_without_its_teacher(data: Path, checkpoint: Path, tmp_path: Path):
    """Its checkpoint is as large as the teacher's, and fairseq-generate asks for no teacher; its steps are DDIM's."""
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(checkpoint.read_bytes())
    flags = f"{FROZEN} {TRUE_TIMES} {QUIET} --student-steps 2 --max-update 4 --eval-bleu --eval-bleu-remove-bpe"
    call("train", *student(data, tmp_path / "save", teacher, f"{flags} --best-checkpoint-metric bleu"))
    teacher.unlink()
    state = read(tmp_path / "save/checkpoint_last.pt")
    assert state["model"].keys() == read(checkpoint)["model"].keys() and not state["criterion"]
    trained = [key for key in state["model"] if re.match(r"translator\.(denoiser|length)\.", key)]
    fixed = [key for key in trained if ".frequencies." in key]
    assert len(state["last_optimizer_state"]["state"]) == len(trained) - len(fixed) > 0
    usual = generate(data, tmp_path / "save/checkpoint_last.pt", steps="--iter-decode-max-iter 2")
    asked = generate(data, tmp_path / "save/checkpoint_last.pt", TRUE_TIMES, steps="--iter-decode-max-iter 2")
    assert hypotheses(usual) == hypotheses(asked) and len(hypotheses(usual)) == 11


def test_resumed_distillation_equals_the_uninterrupted_one(data: Path, checkpoint: Path, tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = f"{FROZEN} --student-steps 2 --dropout 0.1 --self-conditioning random --no-epoch-checkpoints "
    flags += "--disable-validation --max-update"
    call("train", *student(data, whole, checkpoint, f"{flags} 14"))
    call("train", *student(data, cut, checkpoint, f"{flags} 7"))
    torch.manual_seed(99)  # a new process starts anywhere
    call("train", *student(data, cut, checkpoint, f"{flags} 14"))
    ours, theirs = (read(folder / "checkpoint_last.pt") for folder in (whole, cut))
    for part in ("model", "last_optimizer_state"):
        assert different(ours[part], theirs[part]) == []


class Ranks(torch.nn.Module):
    """Stands around a model as torch's DistributedDataParallel does, and passes on no attributes."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, **batch: Any) -> Any:
        return self.module(**batch)


def test_a_model_of_several_ranks_gets_its_teacher_once(data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    model, criterion, batch = taught(data, checkpoint, "--student-steps 2")
    wrapped = ModuleProxyWrapper(Ranks(model))  # as fairseq does, on more than one GPU
    loss, _, _ = criterion(wrapped, batch)
    monkeypatch.setattr(criterion, "_set_teacher", None)
    assert torch.equal(criterion(wrapped, batch)[0], loss) and torch.equal(criterion(model, batch)[0], loss)


def test_half_precision_takes_the_teacher_along(data: Path, checkpoint: Path):
    model, criterion, batch = taught(data, checkpoint, "--student-steps 2")
    exact = criterion(model, batch)[2]["_term_mse"]
    model, criterion, batch = taught(data, checkpoint, "--student-steps 2")
    rough = criterion(model.bfloat16(), batch)[2]["_term_mse"]
    (teacher,) = criterion.teacher
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.bfloat16}
    assert rough.item() == pytest.approx(exact.item(), rel=0.3)
    assert list(criterion.parameters()) == [] and "teacher" not in str(model.state_dict().keys())


# -- what is refused -------------------------------------------------------------------------------------------------

MODELS = {
    "--student-steps 0 --freeze embeddings": "--student-steps is 0",
    "--student-steps 2": "pass --freeze embeddings, or --freeze encoder,embeddings",
    "--freeze embeddings --hidden 32": r"the student's \S+ is \(.+\), but the teacher's \(.+\); pass the --arch",
    "--freeze embeddings --decoder-layers 2": r"but the teacher's missing; pass the --arch and sizes",
    "--freeze embeddings --schedule cosine": "--schedule cosine, but its teacher sigma_t; pass --schedule sigma_t",
    "--freeze embeddings --diffusion-steps 50": "--diffusion-steps 50, but its teacher 0; pass --diffusion-steps 0",
    "--freeze embeddings --heads 1": "the student has --heads 1, but its teacher",
    "--freeze embeddings --length-training only": "--length-training only trains no denoiser",
    "--freeze embeddings --time-min 0.1 --schedule-modifier none": "trains on the times of decoding; drop --time-min",
    "--arch mdlm_toy --student-steps 2 --only": "halves the steps of Gaussian noise",
}


@pytest.mark.parametrize("flags", MODELS)
def test_a_student_that_cannot_learn_from_its_teacher_is_refused(data: Path, checkpoint: Path, flags: str):
    with pytest.raises(UserError, match=MODELS[flags]):
        size = TINY_WORDS if "mdlm" in flags else TINY
        task, model, criterion = parts(student(data, data, checkpoint, flags.removesuffix(" --only"), size=size))
        if not flags.endswith(("32", "layers 2", "only")):
            model.load_state_dict({**model.state_dict(), **read(checkpoint)["model"]}, strict=False)
        criterion(model, None)


def test_validation_decodes_with_the_student(data: Path, checkpoint: Path):
    """fairseq makes a generator for --eval-bleu of whatever model is built last, and the teacher is."""
    flags = "--student-steps 2 --eval-bleu --eval-bleu-remove-bpe"
    task, model, _ = parts(student(data, data, checkpoint, f"{FROZEN} {flags}"))
    assert task.sequence_generator.decoder.translator is model.translator


def test_averaged_weights_of_a_teacher_are_refused(data: Path, checkpoint: Path):
    with pytest.raises(UserError, match="takes its last ones; drop --use-ema"):
        parts(student(data, data, checkpoint, f"{FROZEN} --use-ema"))
    compat.prefer_ema(False)


def test_embeddings_that_are_not_the_teachers_are_refused(data: Path, checkpoint: Path):
    _, model, criterion = parts(student(data, data, checkpoint, "--freeze embeddings"))
    with pytest.raises(UserError, match="start as the teacher, with --finetune-from-model"):
        criterion(model, None)


def test_a_teacher_that_is_none_is_refused(data: Path, checkpoint: Path, tmp_path: Path):
    with pytest.raises(UserError, match="needs a teacher; pass --teacher CHECKPOINT.pt"):
        parts(training(data, data, "--criterion progressive_distillation"))
    with pytest.raises(UserError, match=f"--teacher {tmp_path} is no file"):
        parts(student(data, data, tmp_path, ""))
    call("train", *training(data, tmp_path, "--max-update 1 --disable-validation", "nat_toy", size=TINY_BLOCKS[:-2]))
    one_pass = tmp_path / "checkpoint_last.pt"
    with pytest.raises(UserError, match="is no diffusion model, so it has no steps to halve"):
        parts(student(data, data, one_pass, ""))
    with pytest.raises(UserError, match="but --arch names another kind; pass the teacher's"):
        _, model, criterion = parts(student(data, data, checkpoint, "", arch="nat_toy", size=TINY_BLOCKS[:-2]))
        criterion(model, None)


@pytest.mark.slow
def test_a_network_that_says_v_decodes_under_the_noise_it_was_trained_with(data: Path, tmp_path: Path):
    flags = "--prediction v --schedule sqrt --schedule-modifier factor_vp --noise-factor 3 --decode-noise-factor"
    call("train", *training(data, tmp_path, f"{flags} 3 --max-update 1 --disable-validation", size=TINY))
    teacher = tmp_path / "checkpoint_last.pt"
    with pytest.raises(UserError, match="pass --decode-noise-factor 3"):
        _, model, criterion = parts(student(data, data, teacher, f"{FROZEN} {flags} 2"))
        criterion(model, None)
    model, criterion, batch = taught(data, teacher, f"{flags} 3")
    assert torch.isfinite(criterion(model, batch)[0])
