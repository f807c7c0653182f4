"""Reading checkpoints: what is wrong with a file, averaged weights, and those who watch."""

from __future__ import annotations

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


@pytest.mark.skipif(compat.version_tuple(torch.__version__) < (2, 6), reason="torch loads any object before 2.6")
def test_unsafe_objects_are_explained(tmp_path):
    torch.save({"path": Path("unsafe")}, tmp_path / "unsafe.pt")
    with pytest.raises(UserError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        load(str(tmp_path / "unsafe.pt"))


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
