"""Reading checkpoints: what is wrong with a file, averaged weights, and those who watch."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError


@pytest.fixture(autouse=True)
def restore_ema():
    yield
    compat.prefer_ema(False)


def save(path: Path, task: str = compat.OUR_TASK, **extra: object) -> str:
    """A checkpoint with what fairseq's upgrade of old checkpoints asks for, and one weight."""
    state = {
        "cfg": {"task": {"_name": task}, "model": {"_name": "any"}},
        "model": {"weight": torch.zeros(1)},
        "optimizer_history": [{"optimizer_name": "Adam", "lr_scheduler_state": {}, "num_updates": 1}],
        "extra_state": {"train_iterator": {"epoch": 1}, **extra},
    }
    torch.save(state, path)
    return str(path)


def load(path: str) -> dict:
    from fairseq import checkpoint_utils

    compat.checkpoints.wrap_checkpoint_loading()
    return checkpoint_utils.load_checkpoint_to_cpu(path)


def test_truncated_checkpoint_names_file_size_and_remedy(tmp_path):
    path = save(tmp_path / "checkpoint.pt")
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{path} \({len(whole) // 2} bytes\): it is truncated.*--restore-file"):
        load(path)


def test_empty_checkpoint(tmp_path):
    (tmp_path / "empty.pt").touch()
    with pytest.raises(UserError, match=r"empty.pt \(0 bytes\)"):
        load(str(tmp_path / "empty.pt"))


def test_bare_weights_are_no_fairseq_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match="no fairseq checkpoint"):
        load(str(tmp_path / "bare.pt"))


def test_a_list_is_no_fairseq_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="truncated, damaged or not a checkpoint"):
        load(str(tmp_path / "list.pt"))


class RunsCode:
    """Makes a folder wherever it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.file,)


restricted = pytest.mark.skipif(compat.version_tuple(torch.__version__) < (2, 6), reason="torch loads any object there")


@pytest.fixture
def unsafe(tmp_path: Path) -> str:
    return save(tmp_path / "unsafe.pt", own=RunsCode(tmp_path / "has-run"))


def no_advice(sentence: str) -> bool:
    """Nothing in it says how to turn a protection off."""
    return not any(name in sentence for name in ("weights_only", "TORCH_", "RUN_CODE", "trust"))


@restricted
def test_code_is_refused_and_named(unsafe: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"it holds a \w+.mkdir, and only .*since others can run code") as refused:
        load(unsafe)
    assert no_advice(str(refused.value)) and not (tmp_path / "has-run").exists()


@restricted
def test_code_runs_if_a_variable_lets_it(unsafe: str, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setenv("FAIRSEQ_DIFFUSION_LET_CHECKPOINTS_RUN_CODE", "1")
    load(save(tmp_path / "safe.pt"))
    assert not caplog.records
    assert load(unsafe)["model"]["weight"] == 0
    assert (tmp_path / "has-run").exists() and ".mkdir: it may run code" in caplog.text
    monkeypatch.delenv("FAIRSEQ_DIFFUSION_LET_CHECKPOINTS_RUN_CODE")
    with pytest.raises(UserError):
        load(unsafe)


def test_fairseqs_old_checkpoints_load(tmp_path: Path):
    """With their arguments as argparse leaves them."""
    path = save(tmp_path / "old.pt")
    arguments = Namespace(task="translation", arch="transformer", max_source_positions=9, max_target_positions=9)
    torch.save({**torch.load(path), "cfg": None, "args": arguments}, path)
    compat.allow_argparse_checkpoints()
    assert load(path)["cfg"].model.arch == "transformer"


@pytest.mark.parametrize("content", [b"hello", b"\x80\x02}q\x00(X\x03\x00\x00", b"\x80\x02cos\nsystem\n0"])
def test_a_file_that_is_no_archive_gets_no_such_advice(tmp_path: Path, content: bytes):
    (tmp_path / "text.pt").write_bytes(content)
    with pytest.raises(UserError, match="cannot read the checkpoint") as refused:
        load(str(tmp_path / "text.pt"))
    assert no_advice(str(refused.value))


def test_missing_file_stays_a_file_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "nowhere.pt"))


def test_ema_is_used_only_when_preferred(tmp_path):
    path = save(tmp_path / "ema.pt", ema={"weight": torch.ones(1)})
    assert load(path)["model"]["weight"] == 0
    compat.prefer_ema(True)
    assert load(path)["model"]["weight"] == 1
    compat.prefer_ema(False)
    assert load(path)["model"]["weight"] == 0


def test_our_checkpoint_without_ema_is_refused_and_a_teacher_is_not(tmp_path):
    compat.prefer_ema(True)
    with pytest.raises(UserError, match="--store-ema, or drop --use-ema"):
        load(save(tmp_path / "ours.pt"))
    assert load(save(tmp_path / "teacher.pt", task="translation"))["model"]["weight"] == 0


def test_task_of_an_argparse_checkpoint_without_ema():
    state = {"args": Namespace(task=compat.OUR_TASK), "model": {}, "extra_state": {}}
    with pytest.raises(UserError):
        compat.with_ema(state, "old.pt")


def test_watchers_see_what_is_loaded_while_they_watch(tmp_path):
    path, seen = save(tmp_path / "ema.pt", ema={"weight": torch.ones(1)}), []
    load(path)
    with compat.watched_loading(lambda *what: seen.append(what)):
        load(path)
        compat.prefer_ema(True)
        load(path)
        load(save(tmp_path / "teacher.pt", task="translation"))
    load(path)
    assert [(Path(path).name, state["model"]["weight"].item(), ema) for path, state, ema in seen] == [
        ("ema.pt", 0, False),
        ("ema.pt", 1, True),
        ("teacher.pt", 0, False),
    ]


@pytest.mark.parametrize(
    "state, names",
    [
        ({"args": Namespace(task="old", arch="lstm")}, ("old", "lstm")),
        ({"cfg": {"task": {"_name": "new"}, "model": Namespace(_name="transformer")}}, ("new", "transformer")),
        ({"cfg": OmegaConf.create({"task": {"_name": "new"}, "model": {"_name": "any"}})}, ("new", "any")),
        ({"cfg": OmegaConf.create({"task": {}}), "args": None}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_names_of_a_checkpoint(state, names):
    if OmegaConf.is_config(state.get("cfg")):
        OmegaConf.set_struct(state["cfg"], True)
    assert (compat.task_name(state), compat.model_name(state)) == names
