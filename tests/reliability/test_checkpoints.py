"""Checkpoints of which bytes, weights or settings have changed, and files that try to run something."""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from damage import ODD, damaged, other_values, part_of_the_examples, works_or_says
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from stored_models import DATA, checkpoint
from support import call, read, training

import fairseq_diffusion
from fairseq_diffusion.cli.average import averaged_state
from fairseq_diffusion.errors import UserError

NAMES = ("dinoiser", "difformer", "cmlm", "da_transformer", "diffglat_ctc", "averaged")
OTHER_MODELS = ["transformer", "diffusion", "glancing", "cmlm", "fconv", "lstm", "wav2vec2", "nat", "x", "", None]


def translated(path: Path) -> list[str]:
    model = fairseq_diffusion.load(path, data=DATA, device="cpu")
    assert model is not None
    return [translation.candidates[0].text for translation in model.translate(["a b", "c"])]


def averaged(path: Path) -> Any:
    return averaged_state([path], ema=False)["model"]


OF_ITS_SETTINGS = ("the configuration cannot be read", "has no dictionary for", "choose one of", "pass a number from")
READERS = (translated, averaged)


@given(st.data())
def test_bytes(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    path = tmp_path / "damaged.pt"
    path.write_bytes(data.draw(damaged(checkpoint(data.draw(st.sampled_from(NAMES))).read_bytes())))
    reader = data.draw(st.sampled_from(READERS))
    works_or_says(lambda: reader(path), path.name)
    count("damaged checkpoints: bytes")


def other_tensor(draw: DrawFn, value: torch.Tensor) -> Any:
    forms: list[Callable[[torch.Tensor], Any]] = [
        *(lambda x: x[:1], lambda x: x.flatten(), lambda x: x[None], lambda x: x.T, lambda x: x[:0]),
        *(
            torch.Tensor.half,
            torch.Tensor.long,
            torch.Tensor.bool,
            lambda x: x.to(torch.complex64),
            torch.Tensor.tolist,
        ),
        *(lambda x: x * float("nan"), lambda x: x.expand(3, *x.shape), torch.Tensor.to_sparse, lambda x: x.to("meta")),
    ]
    return draw(st.sampled_from(forms))(torch.atleast_1d(value))


@st.composite
def other_state(draw: DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    """With other weights, other settings, or parts that are missing or of other types."""
    state = {**good, "model": dict(good["model"]), "cfg": deepcopy(good["cfg"])}
    where = draw(st.sampled_from(["weights", "weights", "model", "task", "all", "small", "parts", "arch"]))
    if where == "weights":
        key = draw(st.sampled_from(list(state["model"])))
        value = state["model"].pop(key)
        how = draw(st.sampled_from(["tensor", "tensor", "value", "gone", "renamed"]))
        if how != "gone":
            state["model"][key * (1 + (how == "renamed"))] = draw(ODD) if how == "value" else other_tensor(draw, value)
    elif where in ("model", "task"):
        state["cfg"][where] = draw(other_values(state["cfg"][where]))
    elif where == "all":
        state["cfg"] = draw(other_values(state["cfg"]))
    elif where == "small":
        small = {key: value for key, value in state.items() if key not in ("model", "cfg")}
        state |= draw(other_values(small))
    elif where == "arch":
        state["cfg"]["model"]["_name"] = draw(st.sampled_from(OTHER_MODELS))
    else:
        return {key: state.get(key, value) for key, value in draw(other_values(dict.fromkeys(state, 0))).items()}
    return state


@part_of_the_examples(2)
@given(st.data())
def test_structure(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    path = tmp_path / "other.pt"
    torch.save(data.draw(other_state(read(checkpoint(data.draw(st.sampled_from(NAMES)))))), path)
    reader = data.draw(st.sampled_from(READERS))
    works_or_says(lambda: reader(path), path.name, *OF_ITS_SETTINGS)
    count("damaged checkpoints: structure")


@pytest.mark.parametrize("key", ["schedule.curve.table", "denoiser.layers.0.feed_forward.up.weight"])
@pytest.mark.parametrize("kind", [torch.long, torch.bool, torch.complex64, torch.float64, torch.float16])
def test_numbers_of_another_kind_are_not_rounded_to_weights(tmp_path: Path, key: str, kind: torch.dtype):
    """Other precisions may be, and a table of times as whole numbers would be all zeros."""
    state, path = read(checkpoint("difformer")), tmp_path / "other.pt"
    weights, key = state["model"], f"translator.{key}"
    torch.save({**state, "model": {**weights, key: weights[key].to(kind)}}, path)
    if kind.is_floating_point:
        assert translated(path)
    else:
        with pytest.raises(UserError, match=f"{key} holds numbers of the type {str(kind)[6:]}.*other.pt"):
            translated(path)


# -- continuing


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state of a training, with its optimiser and averages."""
    folder = tmp_path_factory.mktemp("begun")
    call("train", *training(DATA, folder, f"{CONTINUING} --max-update 2"))
    return read(folder / "checkpoint_last.pt")


CONTINUING = "--disable-validation --no-epoch-checkpoints --store-ema --ema-fp32"
CHANGES = [
    *[("task_state source", "x"), ("task_state", []), ("extra_state metrics", "x"), ("extra_state ema", "x")],
    *[("extra_state train_iterator", None), ("extra_state train_iterator epoch", "x"), ("last_optimizer_state", [])],
    *[("last_optimizer_state state 0", "x"), ("last_optimizer_state state 0 exp_avg_sq", torch.zeros(3))],
    *[("last_optimizer_state param_groups 0 params", "x"), ("optimizer_history", [7])],
]


@pytest.mark.parametrize("place, value", CHANGES, ids=[place for place, _ in CHANGES])
def test_continuing(begun: dict[str, Any], tmp_path: Path, count: Callable[..., None], place: str, value: Any):
    state = deepcopy(begun)
    *outer, last = [int(key) if key.isdigit() else key for key in place.split()]
    part: Any = state
    for key in outer:
        part = part[key]
    part[last] = value
    path = tmp_path / "checkpoint_last.pt"
    torch.save(state, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=str(path)):
        call("train", *training(DATA, tmp_path, f"{CONTINUING} --max-update 3"))
    assert path.read_bytes() == before
    count("damaged checkpoints: structure")


# -- code in a file


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def attacks(sentinel: Path) -> dict[str, Any]:
    code = f"open({str(sentinel)!r}, 'w')"
    return {
        "system": Calls(os.system, f"touch {sentinel}"),
        "eval": Calls(builtins.eval, code),
        "exec": Calls(builtins.exec, code),
        "open": Calls(builtins.open, str(sentinel), "w"),
        "Popen": Calls(subprocess.Popen, ["touch", str(sentinel)]),
        "getattr": Calls(builtins.getattr, Calls(__import__, "os"), "system"),
        "pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {sentinel}"))),
        "Path": Calls(Path.touch, sentinel),
    }


PLACES = [(), ("cfg",), ("cfg", "model", "hidden"), ("cfg", "task", "data"), ("model", "x"), ("task_state",), ("args",)]


@pytest.mark.skipif(not hasattr(torch.serialization, "add_safe_globals"), reason="torch loads any object before 2.6")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("reader", READERS)
def test_nothing_runs(tmp_path: Path, count: Callable[..., None], reader: Callable[[Path], Any], zipped: bool):
    path, sentinel = tmp_path / "attack.pt", tmp_path / "sentinel"
    for attack in attacks(sentinel).values():
        for place in PLACES:
            state: Any = read(checkpoint("glat"))
            found = state
            for name in place[:-1]:
                found = found[name]
            if place:
                found[place[-1]] = attack
            torch.save(state if place else attack, path, _use_new_zipfile_serialization=zipped)
            assert works_or_says(lambda: reader(path), path.name) is None
            assert not sentinel.exists()
            count("files with code")
