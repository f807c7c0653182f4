"""An architecture named on the command line and its YAML under hydra are the same model."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ENVIRONMENT, ROOT
from fairseq import options
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from support import USER_DIR, call, read, training

import fairseq_diffusion
from fairseq_diffusion.cli.main import main

try:
    from hydra import compose, initialize_config_dir
except ImportError:  # hydra 1.0, below fairseq 0.12.2
    from hydra.experimental import compose, initialize_config_dir

fairseq_diffusion.load()

from fairseq_diffusion.models.config import DiffusionConfig  # noqa: E402
from fairseq_diffusion.models.diffusion_checks import check  # noqa: E402
from fairseq_diffusion.systems.presets import PRESETS  # noqa: E402  filled by load()

NAME = "translate"


def write_configuration(folder: Path, arch: str, data: Path, **sections: dict[str, Any]) -> Path:
    """A hydra configuration as a user would write it, with the model's part made by our command."""
    (folder / "model").mkdir(parents=True)
    assert main(["config", arch, "--output", str(folder / "model" / f"{arch}.yaml")]) == 0
    own = {
        "defaults": [{"model": arch}],
        "task": {"_name": "diffusion_translation", "data": str(data), "max_source_positions": 99},
        "criterion": {"_name": "diffusion_loss"},
        "optimizer": {"_name": "adam"},
        "lr_scheduler": {"_name": "fixed"},
        **sections,
    }
    (folder / f"{NAME}.yaml").write_text("# @package _group_\n" + yaml.safe_dump(own, sort_keys=False))
    return folder


def from_hydra(folder: Path) -> dict[str, Any]:
    hydra_init(NAME)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(folder)):
        cfg = compose(NAME)
    add_defaults(cfg)
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)


def from_command_line(arch: str, data: Path) -> dict[str, Any]:
    flags = [str(data), *USER_DIR, "--arch", arch, "--criterion", "diffusion_loss", "--optimizer", "adam"]
    args = options.parse_args_and_arch(options.get_training_parser(), [*flags, "--max-source-positions", "99"])
    return OmegaConf.to_container(convert_namespace_to_omegaconf(args), resolve=True, enum_to_str=True)


def settings(section: dict[str, Any]) -> dict[str, Any]:
    """What builds the part; `_name` is the architecture on the command line and the model under hydra."""
    return {key: value for key, value in section.items() if key not in ("_name", "_parent")}


# a system's sizes differ in the same few fields, so one pair of languages stands for the others
SHOWN = [name for name in PRESETS if "wmt" not in name or PRESETS[name].model == "diffusion"]


@pytest.mark.parametrize("arch", SHOWN)
def test_command_line_and_hydra_give_the_same_model(data: Path, tmp_path: Path, arch: str):
    by_flag, by_file = from_command_line(arch, data), from_hydra(write_configuration(tmp_path / "conf", arch, data))
    assert settings(by_flag["model"]) == settings(by_file["model"])
    assert settings(by_flag["criterion"]) == settings(by_file["criterion"])
    assert by_file["model"]["max_source_positions"] == 99
    assert {key: by_file["model"][key] for key in PRESETS[arch].fields} == PRESETS[arch].fields


def test_a_flag_wins_over_the_preset(data: Path):
    flags = [str(data), *USER_DIR, "--arch", "dinoiser", "--hidden", "64", "--schedule-modifier", "none"]
    args = options.parse_args_and_arch(options.get_training_parser(), flags)
    assert (args.hidden, str(args.schedule_modifier), str(args.sampler)) == (64, "none", "cedi")


def test_architectures_are_registered_and_unknown_ones_listed(data: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        call("train", *training(data, data / "unused", arch="dinoizer"))
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert all(arch in error for arch in PRESETS)


def test_hydra_trains_the_model_of_the_command_line(data: Path, tmp_path: Path):
    call("train", *untrimmed(data, tmp_path / "flags"))
    sections: dict[str, dict[str, Any]] = {
        "common": {"cpu": True, "user_dir": str(ROOT / "fairseq_diffusion")},
        "dataset": {"batch_size": 8, "num_workers": 0, "disable_validation": True},
        "optimization": {"max_update": 2, "lr": [0.001]},
        "checkpoint": {"save_dir": str(tmp_path / "file")},
    }
    folder = write_configuration(tmp_path / "conf", "dinoiser_toy", data, **sections)
    run = [sys.executable, "-m", "fairseq_cli.hydra_train", "--config-dir", str(folder), "--config-name", NAME]
    result = subprocess.run(run, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    by_flag, by_file = (read(tmp_path / name / "checkpoint_last.pt") for name in ("flags", "file"))
    assert settings(by_flag["cfg"]["model"]) == settings(by_file["cfg"]["model"])
    assert {k: v.shape for k, v in by_flag["model"].items()} == {k: v.shape for k, v in by_file["model"].items()}
    assert sum(v.numel() for v in by_flag["model"].values()) > 500_000  # the preset's size, not a tiny one


SMALL = (
    "common.cpu=true dataset.max_tokens=200 optimization.max_update=2 optimization.update_freq=[1] "
    "model.hidden=16 model.inner=32 model.heads=2 model.encoder_layers=1 model.decoder_layers=1 model.latent_dim=4 "
    "dataset.num_workers=0"
)


def test_the_command_of_the_documents_trains(data: Path, tmp_path: Path):
    """With paths of ours and a small model; the defaults of our task, model and criterion are found by their names."""
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    write, train = re.search(
        r"\n    (fairseq-diffusion config .*)\n\n    (fairseq-hydra-train(?:.*\\\n)*.*)\n", text
    ).groups()
    here = {"$PWD": tmp_path, "$(fairseq-diffusion user-dir)": ROOT / "fairseq_diffusion", "DATA-BIN": data, "\\\n": ""}
    for name, path in here.items():
        train = train.replace(name, str(path))
    assert main(shlex.split(write.replace("--config-dir conf", f"--config-dir {tmp_path / 'conf'}"))[1:]) == 0
    run = [sys.executable, "-m", "fairseq_cli.hydra_train", *shlex.split(train)[1:], *SMALL.split()]
    result = subprocess.run(run, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    saved = read(tmp_path / "checkpoints" / "checkpoint_last.pt")
    assert saved["cfg"]["criterion"]["_name"] == "diffusion_loss" and "bleu" in str(saved["extra_state"])
    assert saved["cfg"]["task"]["eval_bleu_args"] == '{"iter_decode_max_iter": 20}'
    changed = {word.split("=")[0] for word in SMALL.split()}
    preset = {k: v for k, v in PRESETS["dinoiser_iwslt_de_en"].fields.items() if f"model.{k}" not in changed}
    assert len(preset) > 5 and {k: saved["cfg"]["model"][k] for k in preset} == preset


def untrimmed(data: Path, save_dir: Path) -> list[Any]:
    flags = "--criterion diffusion_loss --optimizer adam --lr 1e-3 --cpu --batch-size 8 --max-update 2 --num-workers 0"
    flags += " --arch dinoiser_toy --max-source-positions 99 --disable-validation --save-dir"
    return [data, *USER_DIR, *flags.split(), save_dir]


@pytest.mark.parametrize("arch", [name for name in PRESETS if PRESETS[name].model == "diffusion"])
def test_no_preset_is_refused(arch: str):
    check(DiffusionConfig(max_source_positions=200, max_target_positions=200, seed=1, **PRESETS[arch].fields))
