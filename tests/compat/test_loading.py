"""Reading checkpoints: what is wrong with a file, averaged weights, and those who watch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support import call, training

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

    compat.wrap_checkpoint_loading()
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
    with pytest.raises(UserError, match="truncated or not a checkpoint"):
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


# -- checkpoints from before queries, keys and values were one product -----------------------------------------------


def old(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of ours, named and cut up as they once were."""
    found = {}
    for name, value in weights.items():
        if "query_key_value" not in name:
            found[name] = value
            continue
        width = len(value) // 3
        found[name.replace("query_key_value", "query")] = value[:width]
        found[name.replace("query_key_value", "key_value")] = value[width:]
    return found


def test_three_products_become_one_in_weights_and_their_averages(tmp_path, checkpoint):
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    weights = state["model"]
    extra = {**state["extra_state"], "ema": old(weights), "ema_fp32_params": old(weights)}
    torch.save({**state, "model": old(weights), "extra_state": extra}, tmp_path / "old.pt")
    found = load(str(tmp_path / "old.pt"))
    for part in (found["model"], found["extra_state"]["ema"], found["extra_state"]["ema_fp32_params"]):
        assert part.keys() == weights.keys()
        assert all(torch.equal(part[name], weights[name]) for name in weights)


def test_the_optimiser_of_such_a_checkpoint_is_refused(tmp_path, data, checkpoint):
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    torch.save({**state, "model": old(state["model"])}, tmp_path / "old.pt")
    flags = f"--restore-file {tmp_path / 'old.pt'} --max-update 62 --disable-validation"
    with pytest.raises(UserError, match="the state of its optimiser does not fit.*--reset-optimizer"):
        call("train", *training(data, tmp_path / "save", flags))
    call("train", *training(data, tmp_path / "save", f"{flags} --reset-optimizer"))
    assert (tmp_path / "save" / "checkpoint_last.pt").is_file()
