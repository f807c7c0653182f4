"""Every part that a flag can name: the model is built, trains a step, and decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from support import training

import fairseq_diffusion
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.modifiers import MODIFIERS

SEVERAL = [
    "--state embedding",
    *(f"--schedule {curve}" for curve in CURVES),
    *(f"--schedule sqrt --schedule-modifier {modifier}" for modifier in MODIFIERS if modifier != "spindle"),
    "--objective mse=1,anchor=0.5",
    "--objective mse=1,rounding=1,anchor=0.5,prior=0.1 --label-smoothing 0.1",
    "--objective anchor --schedule-modifier none --embedding-norm none --embedding-init-std 1",
    "--objective mse,anchor --schedule-modifier none --embedding-norm scaled --embedding-init-std 0.1",
    "--objective mse,anchor --embedding-norm layer --embedding-init-std 0.1",
    "--schedule sqrt --schedule-modifier factor --noise-factor 4 --diffusion-steps 50 --grid respaced",
    "--schedule sqrt --schedule-modifier factor_vp --noise-factor 3 --prediction v --decode-noise-factor 3",
    "--latent-map linear --time-features sinusoid --length-map linear --early-stop 0.25 --sampler ddpm",
    "--latent-map linear --self-conditioning none",
    "--source-drop 0.5",
    "--self-conditioning none",
    "--self-conditioning random --self-conditioning-probability 0",
    "--self-conditioning random --self-conditioning-probability 1",
    "--self-conditioning both",
    "--pre-norm --activation relu",
    "--time-sampler stratified",
    "--time-sampler uniform --loss-normaliser tokens",
    "--prediction v",
    "--length-target absolute --length-classes 64 --length-grad --length-loss 1",
    "--length-training off",
    "--length-training only",
]


def build(data: Path, flags: str = "") -> tuple[Any, Any, Any]:
    """Task, model and criterion as fairseq-train makes them from the command line."""
    fairseq_diffusion.load()
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, [str(arg) for arg in training(data, data, flags)])
    cfg = convert_namespace_to_omegaconf(args)
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def batch_of(task: Any, size: int = 6) -> dict[str, Any]:
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    return dataset.collater([dataset[i] for i in range(size)])


@pytest.mark.parametrize("flags", SEVERAL)
def test_parts_train_and_decode(data: Path, flags: str):
    task, model, criterion = build(data, flags)
    batch = batch_of(task)
    model.train()
    model.set_num_updates(0)
    loss, sample_size, log = criterion(model, batch)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0 and sample_size > 0
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for name, p in trainable.items() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert trainable and missing == []
    assert all(p.grad.abs().sum() > 0 for name, p in trainable.items() if name.endswith("weight"))
    generator = task.build_generator([model], None)
    decoded = task.inference_step(generator, [model], batch)
    assert len(decoded) == 6 and all(hypotheses[0]["tokens"][-1] == 2 for hypotheses in decoded)


def test_loss_is_the_weighted_sum_of_the_terms(data: Path):
    task, model, criterion = build(data, "--objective mse=2,rounding=0.5 --length-loss 0.3 --dropout 0")
    loss, _, log = criterion(model, batch_of(task))
    expected = 2 * log["_term_mse"] + 0.5 * log["_term_rounding"] + 0.3 * log["_term_length"]
    torch.testing.assert_close(loss, expected)


def test_a_term_of_weight_zero_is_logged_only(data: Path):
    task, model, criterion = build(data, "--objective mse=0,rounding=1 --length-loss 1e-9 --dropout 0")
    loss, _, log = criterion(model, batch_of(task))
    torch.testing.assert_close(loss, log["_term_rounding"])
    assert log["_term_mse"] > 0


def test_padding_and_batching_do_not_change_a_sentences_loss(data: Path):
    task, model, criterion = build(data, "--dropout 0")
    model.eval()
    together, dataset = criterion(model, batch_of(task))[0], task.dataset("valid")
    alone = sum(criterion(model, dataset.collater([dataset[i]]))[0] for i in range(6))
    torch.testing.assert_close(together, alone)


def test_training_noise_changes_with_the_update_and_the_seed(data: Path):
    task, model, criterion = build(data, "--dropout 0 --schedule-update 1000000")
    batch = batch_of(task)

    def loss(update: int, seed: int) -> float:
        model.cfg.seed = seed
        model.set_num_updates(update)
        return criterion(model, batch)[0].item()

    model.train()
    assert loss(1, 1) == loss(1, 1)
    assert len({loss(1, 1), loss(2, 1), loss(1, 2)}) == 3
    model.eval()
    assert loss(1, 1) == loss(2, 1)  # validation is always under the same noise


def test_schedule_follows_the_embeddings_when_due(data: Path):
    _, model, _ = build(data, "--schedule-update 3")
    seen = []
    for update in range(7):
        with torch.no_grad():
            model.translator.state.weight.normal_()
        model.train(update != 6)  # validation leaves it alone
        model.set_num_updates(update)
        seen.append(model.translator.schedule.modifier.sigma_min.item())
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] == seen[6]


def test_frozen_parameters_are_no_ones_to_optimise(data: Path):
    for mode, expected in (("only", {True}), ("off", {False}), ("joint", {True, False})):
        _, model, _ = build(data, f"--length-training {mode}")
        assert {".length." in name for name, p in model.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize(
    "flags, trained",
    [
        ("--freeze encoder,embeddings", {"denoiser", "length"}),
        ("--freeze denoiser --length-training off", {"encoder", "state"}),
        ("--freeze length", {"encoder", "state", "denoiser"}),
    ],
)
def test_named_parts_are_frozen(data: Path, flags: str, trained: set[str]):
    _, model, _ = build(data, flags)
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad} == trained


@pytest.mark.parametrize(
    "flags", ["--freeze length --length-training only", "--freeze encoder,embeddings,denoiser,length"]
)
def test_a_model_that_is_all_frozen_is_refused(data: Path, flags: str):
    with pytest.raises(UserError, match="leave nothing to train; name fewer parts"):
        build(data, flags)


def test_positions_come_from_the_task(data: Path):
    _, model, _ = build(data, "--max-source-positions 40 --max-target-positions 50")
    assert model.max_positions() == (40, 50)


def test_sizes_are_those_of_the_flags(data: Path):
    sizes = "--hidden 12 --inner 20 --heads 3 --encoder-layers 2 --decoder-layers 3 --latent-dim 5 --length-classes 7"
    _, model, _ = build(data, sizes)
    shapes = {name.removeprefix("translator."): tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["encoder.layers.0.feed_forward.up.weight"] == (20, 12)
    assert shapes["state.weight"][1] == 5
    assert {name.split(".")[2] for name in shapes if name.startswith("encoder.layers.")} == {"0", "1"}
    assert {name.split(".")[2] for name in shapes if name.startswith("denoiser.layers.")} == {"0", "1", "2"}
    assert 7 in {shape[0] for name, shape in shapes.items() if name.startswith("length.")}


DIFFERENCES = [
    ("--schedule-modifier factor", "--schedule-modifier factor --noise-factor 2"),
    ("--schedule-modifier none", "--schedule-modifier none --diffusion-steps 3"),
    ("--schedule-modifier none", "--schedule-modifier none --embedding-norm scaled"),
    ("", "--embedding-norm layer"),
    ("", "--latent-map linear"),
    ("", "--time-features sinusoid"),
    ("", "--length-map linear"),
    ("", "--source-drop 0.99"),
]


@pytest.mark.parametrize("one, other", DIFFERENCES)
def test_a_flag_changes_the_loss(data: Path, one: str, other: str):
    losses = []
    for flags in (one, other):
        task, model, criterion = build(data, f"--dropout 0 {flags}")
        losses.append(criterion(model.train(), batch_of(task))[0].item())
    assert losses[0] != losses[1]


def sentence_losses(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The squared error of each sentence, [B]."""
    return model(batch["net_input"]["src_tokens"], batch["target"], batch["id"]).terms["mse"]


def test_training_drops_whole_sources_and_validation_none(data: Path):
    """A sentence's training loss is that of a model without any source, or that of a model with all of them."""
    task, model, _ = build(data, "--dropout 0 --source-drop 0.5 --length-training off")
    torch.nn.init.normal_(model.translator.null)
    batch, whole = batch_of(task), {}
    for p in (0.0, 0.5, 1.0):
        model.translator.source_drop = p
        whole[p] = sentence_losses(model.train(), batch)
    some = [torch.isclose(whole[0.5], whole[p], rtol=1e-4) for p in (0.0, 1.0)]
    assert torch.equal(some[0], ~some[1]) and some[0].any() and some[1].any()
    model.translator.source_drop = 1.0
    validated = sentence_losses(model.eval(), batch)
    model.translator.source_drop = 0.0
    assert torch.equal(validated, sentence_losses(model.eval(), batch))


@pytest.mark.parametrize("flag, reached", [("", False), ("--length-grad", True)])
def test_length_loss_reaches_the_encoder_if_asked_to(data: Path, flag: str, reached: bool):
    task, model, _ = build(data, flag)
    batch = batch_of(task)
    source, mask = batch["net_input"]["src_tokens"], batch["target"].ne(model.pad)
    terms, _ = model.translator.length_loss(model.translator.encode(source, source.ne(model.pad)), mask)
    terms["length"].sum().backward()
    assert (model.translator.encoder.embedding.weight.grad is not None) == reached
