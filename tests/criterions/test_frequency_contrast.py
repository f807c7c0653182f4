"""The criterion of an autoregressive model: what it adds to fairseq's own, in precision and ranks of several kinds."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import options, tasks
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from runs import MODEL, UPDATES
from support import TINY, USER_DIR

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.criterions.frequency_contrast import (  # noqa: E402
    FrequencyContrastConfig,
    FrequencyContrastCriterion,
)
from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.objective.contrast import frequency_contrast, rarity_of  # noqa: E402

NAME = "label_smoothed_cross_entropy_with_frequency_contrast"
FLAGS = f"--criterion {NAME} --label-smoothing 0.1 --dropout 0 --contrast-dropout 0"


def parts(data: Path, flags: str = "", model: str = MODEL, task: str = "translation") -> Any:
    """Task, model, criterion and a batch as fairseq-train makes them."""
    user_dir = USER_DIR[:2]
    args = [str(data), *user_dir, "--task", task, *f"{model} {UPDATES} {FLAGS} {flags}".split()]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), args))
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    torch.manual_seed(1)
    made, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    batch = next(task.get_batch_iterator(task.dataset("train"), max_sentences=8).next_epoch_itr(shuffle=False))
    return SimpleNamespace(task=task, model=made.train(), criterion=criterion.train(), batch=batch)


@pytest.mark.parametrize("average", ["", "--sentence-avg"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_loss_is_fairseqs_and_the_contrast_of_the_last_states(data: Path, average: str, prefix: int):
    """Each state with the word that comes next; a prefix without a loss has none."""
    own = f"{average} --frequency-contrast 0.3 --contrast-temperature 0.2 --ignore-prefix-size {prefix}"
    made = parts(data, own)
    loss, size, log = made.criterion(made.model, made.batch)
    plain = LabelSmoothedCrossEntropyCriterion(made.task, bool(average), 0.1, prefix)
    expected, expected_size, expected_log = plain(made.model, made.batch)
    assert size == expected_size == (8 if average else made.batch["ntokens"])
    torch.testing.assert_close(log["nll_loss"], expected_log["nll_loss"])
    states, _ = made.model.extract_features(**made.batch["net_input"])
    words = made.task.target_dictionary
    target = made.batch["target"][:, prefix:]
    real = target.ne(words.pad()) & target.ne(words.eos())
    counts = torch.tensor(words.count)
    counts[: words.nspecial - 1] = -1  # all but <unk>
    rows, of_rows = states[:, prefix:][real], target[real]
    each = frequency_contrast(rows, rows, of_rows, rarity_of(counts)[of_rows], real[real], 0.2)
    torch.testing.assert_close(log["frequency_contrast"], size * each.mean())
    torch.testing.assert_close(loss, expected + 0.3 * size * each.mean())
    assert log["loss"] == loss


def test_a_step_lowers_it(data: Path):
    """With hardly anything else in the loss."""
    made = parts(data, "--frequency-contrast 1000")
    found = []
    for _ in range(2):
        loss, size, log = made.criterion(made.model, made.batch)
        found.append(float(log["frequency_contrast"]) / size)
        made.model.zero_grad()
        (loss / size).backward()
        with torch.no_grad():
            for parameter in made.model.parameters():
                parameter -= 1e-6 * parameter.grad
    assert found[1] < found[0]


def test_half_precision(data: Path):
    """fairseq casts the criterion, too; how rare words are is not rounded."""
    made = parts(data)
    full = float(made.criterion(made.model, made.batch)[2]["frequency_contrast"])
    made.model.bfloat16()
    made.criterion.bfloat16()
    loss, _, log = made.criterion(made.model, made.batch)
    loss.backward()
    assert made.criterion.contrast.rarity.dtype == torch.float and log["frequency_contrast"].dtype == torch.float
    assert float(log["frequency_contrast"]) == pytest.approx(full, rel=0.02)
    assert all(p.grad.isfinite().all() for p in made.model.parameters())


def test_gradients_are_shared_by_torchs_wrapper(data: Path):
    """Which knows of what is called through it alone; here for a single rank, with an output layer of its own."""
    made = parts(data)
    made.criterion(made.model, made.batch)[0].backward()
    plain = [parameter.grad.clone() for parameter in made.model.parameters()]
    made.model.zero_grad()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), world_size=1, rank=0)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(made.model)
        made.criterion(wrapped, made.batch)[0].backward()
    finally:
        torch.distributed.destroy_process_group()
    for parameter, expected in zip(made.model.parameters(), plain):
        torch.testing.assert_close(parameter.grad, expected)


def test_validation_draws_nothing(data: Path):
    """The same positions and no dropout, whatever torch's generator has."""
    made = parts(data, "--contrast-dropout 0.5")
    made.criterion.contrast.positions = 10
    made.model.eval()

    def found(training: bool, seed: int) -> float:
        torch.manual_seed(seed)
        return float(made.criterion.train(training)(made.model, made.batch)[2]["frequency_contrast"])

    assert found(False, 1) == found(False, 2)
    assert found(True, 1) == found(True, 1) != found(True, 2)


def test_it_is_logged_to_base_2():
    logs = [
        {"loss": 8.0, "nll_loss": 4.0, "frequency_contrast": torch.tensor(3.0), "ntokens": 6, "sample_size": 6},
        {"loss": 2.0, "nll_loss": 1.0, "frequency_contrast": torch.tensor(1.0), "ntokens": 2, "sample_size": 2},
    ]
    with metrics.aggregate() as shown:
        FrequencyContrastCriterion.reduce_metrics(logs)
    values = shown.get_smoothed_values()
    assert values["frequency_contrast"] == pytest.approx(0.5 / math.log(2), abs=1e-3)
    assert values["loss"] == pytest.approx(10 / 8 / math.log(2), abs=1e-3)


@pytest.mark.parametrize(
    "model, task", [("--arch lstm", "translation"), ("--arch dinoiser_toy " + " ".join(TINY), "diffusion_translation")]
)
def test_models_without_such_states_are_refused(data: Path, model: str, task: str):
    made = parts(data, model=model, task=task)
    with pytest.raises(UserError, match="is for fairseq's autoregressive Transformers"):
        made.criterion(made.model, made.batch)


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"frequency_contrast": 0.0}, "leaves fairseq's own criterion"),
        ({"frequency_contrast": -0.1}, "--frequency-contrast is -0.1"),
        ({"contrast_temperature": 0.0}, "--contrast-temperature is 0.0"),
        ({"contrast_dropout": 1.0}, "--contrast-dropout is 1.0"),
    ],
)
def test_numbers_without_meaning_are_refused(flags: dict[str, float], said: str):
    task = SimpleNamespace(target_dictionary=SimpleNamespace(pad=lambda: 1))
    with pytest.raises(UserError, match=said):
        FrequencyContrastCriterion(task, FrequencyContrastConfig(sentence_avg=False, **flags))
