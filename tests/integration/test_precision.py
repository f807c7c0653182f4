"""Half precision through fairseq's own optimisers: losses stay near fp32's, training resumes, and decoding agrees."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from support import TINY, TINY_BLOCKS, TINY_WORDS, USER_DIR, call, different, generate, hypotheses, read, training

import fairseq_diffusion
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.precision import KeepsPrecision

# diffusion models with a clipped noise scale, with a noise factor, of expected words, of tokens; one-pass models
KINDS: dict[str, tuple[str, list[str], str]] = {
    "clip": ("dinoiser_toy", TINY, "--objective mse,anchor --schedule-update 7"),
    "factor": ("difformer_toy", TINY, ""),
    "expected": ("cdcd_toy", TINY, "--canvas-positions 12"),
    "tokens": ("mdlm_toy", TINY_WORDS, "--self-conditioning random"),
    "length": ("diffglat_toy", TINY_BLOCKS, "--upsample 3"),
    "ctc": ("diffglat_toy_ctc", TINY_BLOCKS, "--upsample 3"),
    "dag": ("diffglat_toy_dag", TINY_BLOCKS, "--upsample 3"),
}
HALF = {"bf16": "--bf16", "fp16": "--fp16 --fp16-init-scale 4"}
AGREEMENT = {"bf16": (8, 0.02), "fp16": (10, 0.005)}
QUICK = "--optimizer fused_adam --lr 1e-2 --no-epoch-checkpoints --disable-validation"
UPDATES = 20


def arguments(data: Path, folder: Path, kind: str, flags: str = "") -> list[Any]:
    arch, size, own = KINDS[kind]
    return training(data, folder, f"{QUICK} {own} {flags}", arch, size=size)


def train(data: Path, folder: Path, kind: str, flags: str = "") -> list[float]:
    """The loss at each update."""
    log = folder.with_suffix(".log")
    logging = f"--log-format json --log-interval 1 --log-file {log}"
    call("train", *arguments(data, folder, kind, f"--dropout 0 --max-update {UPDATES} {logging} {flags}"))
    return [float(loss) for loss in re.findall(r'"loss": "([^"]+)"', log.read_text())]


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By kind, a checkpoint trained in fp32 and the losses on its way; each is made when it is first asked for."""
    made: dict[str, tuple[Path, list[float]]] = {}

    def make(kind: str) -> tuple[Path, list[float]]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            losses = train(data, folder, kind)
            made[kind] = folder / "checkpoint_last.pt", losses
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", HALF)
def test_losses_stay_near_those_of_fp32(data: Path, tmp_path: Path, plain: Any, kind: str, precision: str):
    """Within 2 % over the first ten updates, and it learns: what glancing shows is decided by words, and drifts."""
    checkpoint, expected = plain(kind)
    losses = train(data, tmp_path / "half", kind, HALF[precision])
    assert len(losses) >= UPDATES and all(map(math.isfinite, losses))
    assert losses[:10] == pytest.approx(expected[:10], rel=0.02) and losses[:10] != expected[:10]
    assert losses[-1] < 0.9 * losses[0]
    one, other = read(checkpoint)["model"], read(tmp_path / "half" / "checkpoint_last.pt")["model"]
    kept = [name for name in one if name.endswith((".W", "sigma_min"))]
    for name in kept:  # neither rounded to half precision, nor far from what it was
        assert other[name].dtype == one[name].dtype
        torch.testing.assert_close(other[name], one[name], rtol=0.01, atol=0)
        assert not torch.equal(other[name], other[name].to(torch.bfloat16).to(other[name].dtype))
    assert len(kept) == {"clip": 2, "expected": 1}.get(kind, 0)


def weights_of(state: dict[str, Any]) -> torch.Tensor:
    return torch.cat([weight.double().flatten() for weight in state["model"].values()])


@pytest.mark.parametrize("flags", ["--bf16", "--fp16", "--memory-efficient-bf16"])
def test_resumed_training_equals_the_uninterrupted_one(data: Path, tmp_path: Path, flags: str):
    """Bit for bit where the weights are in half precision themselves; else but for their rounding in the checkpoint."""
    for name, cuts in (("whole", [10]), ("cut", [5, 10])):
        for last in cuts:
            torch.manual_seed(last)  # a new process starts anywhere
            folder = tmp_path / name
            call("train", *arguments(data, folder, "clip", f"{flags} --fp16-init-scale 4 --max-update {last}"))
    whole, cut = (read(tmp_path / name / "checkpoint_last.pt") for name in ("whole", "cut"))
    assert cut["optimizer_history"][-1]["num_updates"] == 10
    if "memory" in flags:
        assert different(whole["model"], cut["model"]) == []
        assert different(whole["last_optimizer_state"], cut["last_optimizer_state"]) == []
    distance = (weights_of(whole) - weights_of(cut)).norm() / weights_of(whole).norm()
    assert distance < (2**-8 if "bf16" in flags else 2**-11)


def test_loss_scale_falls_when_gradients_overflow(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Updates that overflow are left out and not counted; the training goes on, and its checkpoint knows the scale."""
    call("train", *arguments(data, tmp_path, "clip", "--fp16 --fp16-init-scale 1048576 --max-update 3"))
    overflows = caplog.text.count("gradient overflow detected")
    state = read(tmp_path / "checkpoint_last.pt")
    assert overflows > 0 and state["optimizer_history"][-1]["num_updates"] == 3
    assert state["last_optimizer_state"]["loss_scale"] <= 2 * 1048576 / 2**overflows  # the first good update doubles it


def test_bleu_is_measured_in_bf16(data: Path, tmp_path: Path):
    """Validation decodes with the rounded weights, and averaged ones are kept in fp32."""
    log = tmp_path / "log"
    flags = f"--bf16 --max-update 2 --eval-bleu --store-ema --ema-fp32 --log-format json --log-file {log}"
    usual = [argument for argument in arguments(data, tmp_path, "clip", flags) if argument != "--disable-validation"]
    call("train", *usual)
    assert re.search(r'"valid_bleu": "[\d.]+"', log.read_text())
    averaged = read(tmp_path / "checkpoint_last.pt")["extra_state"]["ema_fp32_params"]
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in averaged.values())


def test_amp_is_refused_on_a_cpu(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--amp works on GPUs only.*--bf16"):
        call("train", *arguments(data, tmp_path, "clip", "--amp --max-update 1"))


def model_and_batch(data: Path, kind: str) -> tuple[Any, Any, Any]:
    """Model, criterion and a batch, as fairseq-train makes them."""
    fairseq_diffusion.load()
    given = [str(argument) for argument in arguments(data, data, kind, "--dropout 0")]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), given))
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model).train()
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    model.set_num_updates(0)
    return model, task.build_criterion(cfg.criterion), dataset.collater([dataset[i] for i in range(8)])


def loss_and_gradient(model: Any, criterion: Any, batch: Any, autocast: bool) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):  # as fairseq has it: around the loss alone
        loss, size, _ = criterion(model, batch)
    (loss / size).backward()
    used = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return (loss / size).item(), torch.cat(used)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_the_loss_and_gradient_of_fp32(data: Path, kind: str):
    """What --amp does on a GPU, with bf16, which has fewer digits than its fp16."""
    parts = model_and_batch(data, kind)
    expected, gradient = loss_and_gradient(*parts, autocast=False)
    found, rounded = loss_and_gradient(*parts, autocast=True)
    assert found == pytest.approx(expected, rel=0.01) and found != expected
    assert torch.cosine_similarity(rounded, gradient, 0) > 0.99
    assert rounded.norm() == pytest.approx(gradient.norm().item(), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_to_be_rounded_is_not(data: Path, kind: str):
    """Buffers of schedules and times, under the casts of both flags."""
    model, _, _ = model_and_batch(data, kind)
    keepers = [module for module in model.modules() if isinstance(module, KeepsPrecision)]
    before = [buffer.clone() for module in keepers for buffer in module.buffers()]
    model.half().to(dtype=torch.bfloat16)
    after = [buffer for module in keepers for buffer in module.buffers()]
    assert bool(keepers) == (kind in ("clip", "factor", "expected", "tokens"))
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(before, after, strict=True))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_agrees_with_fp32(data: Path, plain: Any, kind: str):
    """Most of eleven translations word for word, and their scores (bits a token), after little training."""
    steps = "--iter-decode-max-iter 10" if kind in ("clip", "factor") else ""
    expected = hypotheses(generate(data, plain(kind)[0], steps=steps))
    for precision, (agreeing, tolerance) in AGREEMENT.items():
        found = hypotheses(generate(data, plain(kind)[0], f"--{precision}", steps=steps))
        same = [i for i in expected if found[i][0][0] == expected[i][0][0]]
        assert len(same) >= agreeing and found != expected
        for i in same:
            assert found[i][0][1] == pytest.approx(expected[i][0][1], rel=tolerance)


def test_interactive_takes_bf16(data: Path, corpus: Path, plain: Any):
    steps = "--iter-decode-max-iter 10"
    flags = f"--input {corpus / 'test.a'} {steps} --cpu --bf16 --buffer-size 11 --batch-size 8 --remove-bpe"
    found = hypotheses(call("interactive", data, *USER_DIR, "--path", plain("clip")[0], *flags.split()))
    expected = hypotheses(generate(data, plain("clip")[0], "--bf16", steps))
    assert {i: best[0][0] for i, best in found.items()} == {i: best[0][0] for i, best in expected.items()}
