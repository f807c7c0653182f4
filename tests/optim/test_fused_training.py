"""Training with --optimizer fused_adam on the command line: resumed, continued from fairseq's Adam, and with hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.optim import build_optimizer
from hydra.core.global_hydra import GlobalHydra
from support import call, different, read, training

import fairseq_diffusion

try:
    from hydra import compose, initialize_config_dir
except ImportError:  # hydra 1.0, below fairseq 0.12.2
    from hydra.experimental import compose, initialize_config_dir

USUAL = "--dropout 0.1 --weight-decay 0.1 --no-epoch-checkpoints --disable-validation"
FUSED = "--optimizer fused_adam --adam-betas (0.9,0.98) --adam-eps 1e-7"


def trained(data: Path, folder: Path, flags: str, *updates: int) -> dict[str, Any]:
    """The state behind a training of `updates[-1]` updates that is stopped and resumed at those before it."""
    for last in updates:
        torch.manual_seed(last)  # a new process starts anywhere
        call("train", *training(data, folder, f"{USUAL} {flags} --max-update {last}"))
    state = read(folder / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == updates[-1]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "--update-freq 2"])
def test_resumed_training_equals_the_uninterrupted_one(data: Path, tmp_path: Path, flags: str):
    whole = trained(data, tmp_path / "whole", f"{FUSED} {flags}", 8)
    cut = trained(data, tmp_path / "cut", f"{FUSED} {flags}", 3, 8)
    for part in ("model", "last_optimizer_state"):
        assert different(whole[part], cut[part]) == []
    (group,) = whole["last_optimizer_state"]["param_groups"]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.98), 1e-7, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("before, after", [("adam", "fused_adam"), ("fused_adam", "adam")])
def test_a_training_changes_its_adam(data: Path, tmp_path: Path, before: str, after: str):
    """Behind five updates, and is where fairseq's adam alone would be: no more than rounding away from it."""
    whole = trained(data, tmp_path / "whole", "--optimizer adam", 10)
    trained(data, tmp_path / "both", f"--optimizer {before}", 5)
    both = trained(data, tmp_path / "both", f"--optimizer {after}", 10)
    for name, weight in whole["model"].items():
        torch.testing.assert_close(both["model"][name], weight, rtol=1e-3, atol=1e-5)
    steps = {entry["step"] for entry in both["last_optimizer_state"]["state"].values()}
    assert steps == {10} and all(type(step) is int for step in steps)


CONFIGURATION = """# @package _group_
optimizer: {_name: fused_adam, adam_betas: "(0.9, 0.98)", weight_decay: 0.1}
optimization: {lr: [0.003]}
"""


def test_hydra_configures_it(tmp_path: Path):
    fairseq_diffusion.load()
    (tmp_path / "fused.yaml").write_text(CONFIGURATION)
    hydra_init("fused")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(tmp_path)):
        cfg = compose("fused")
    add_defaults(cfg)
    found = build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.zeros(2))]).optimizer.defaults
    assert (found["lr"], found["betas"], found["eps"], found["weight_decay"]) == (0.003, (0.9, 0.98), 1e-8, 0.1)


def parse(*flags: str) -> Any:
    fairseq_diffusion.load()
    return options.parse_args_and_arch(options.get_training_parser(), ["data", "--arch", "dinoiser_toy", *flags])


def test_help_names_it_and_flags_of_another_form_are_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse("--help")
    assert "fused_adam" in capsys.readouterr().out
    assert parse("--optimizer", "fused_adam", "--adam-eps", "1e-6").adam_eps == 1e-6
    with pytest.raises(SystemExit):
        parse("--optimizer", "fused_adam", "--fp16-adam-stats")
    assert "unrecognized arguments: --fp16-adam-stats" in capsys.readouterr().err
