"""Whether a checkpoint has the bytes that were written, its zip archive has a checksum of each tensor, which torch does
not look at; and whether it has the parts that are read of it."""

from __future__ import annotations

import zipfile
import zlib
from argparse import Namespace
from collections.abc import Mapping
from typing import Any


def damage(path: str) -> str | None:
    """What is wrong with the archive at `path`; None for one that is whole, and for a file of another form."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, EOFError) as error:
        return str(error)
    return part and f"the checksum of {part} is wrong"


PARTS: dict[str, tuple[type, ...]] = {  # what each is where it is there
    "model": (dict,),
    "extra_state": (dict,),
    "task_state": (dict,),
    "optimizer_history": (list,),
    "cfg": (Mapping,),  # omegaconf's is one, too
    "args": (Namespace,),
}


def malformed(state: Any) -> str | None:
    """What is of another type than fairseq and we count on; None where nothing is."""
    import torch

    if not isinstance(state, dict) or state.get("model") is None:
        return "it has no weights under 'model'"
    for name, kinds in PARTS.items():
        if (part := state.get(name)) is not None and not isinstance(part, kinds):
            return f"its {name!r} is of type {type(part).__name__}"
    if not all(isinstance(entry, dict) for entry in state.get("optimizer_history") or ()):
        return "its 'optimizer_history' has an entry of another type"
    if wrong := counts_of(state.get("extra_state") or {}):
        return wrong
    odd = [
        str(name)
        for name, value in state["model"].items()
        if not isinstance(name, str) or (torch.is_tensor(value) and (value.is_meta or value.layout != torch.strided))
    ]
    return f"{odd[0][:200]!r} is no tensor with numbers of its own" if odd else None


def without_settings(state: dict[str, Any]) -> str | None:
    """Weights alone can be averaged, but no model be built for them."""
    return None if state.get("cfg") or state.get("args") else "it has neither 'cfg' nor 'args'"


def counts_of(extra_state: dict[str, Any]) -> str | None:
    """What is wrong with where a training was, if it is there.  Between ranks, fairseq's time is a tensor."""
    import torch

    place = extra_state.get("train_iterator", {})
    if not isinstance(place, dict):
        return f"its 'train_iterator' is of type {type(place).__name__}"
    counts = {name: place.get(name, 0) for name in ("epoch", "iterations_in_epoch", "version")}
    counts["previous_training_time"] = extra_state.get("previous_training_time", 0)
    wrong = (name for name, n in counts.items() if not isinstance(n.item() if torch.is_tensor(n) else n, (int, float)))
    return next((f"its {name!r} is no number" for name in wrong), None)


def unusable(optimizer: Any) -> str | None:
    """What is wrong with the moments of an Adam that has just read them."""
    import torch

    for parameter, state in getattr(getattr(optimizer, "optimizer", None), "state", {}).items():
        if not isinstance(state, dict):
            return f"the state of a parameter is of type {type(state).__name__}"
        for name in ("exp_avg", "exp_avg_sq"):
            moment = state.get(name, parameter)
            if not torch.is_tensor(moment) or moment.shape != parameter.shape:
                return f"the moments {name!r} of a parameter of shape {tuple(parameter.shape)} are not of this shape"
    return None
