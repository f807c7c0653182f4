"""How fairseq reads checkpoints: errors that say what to do, averaged weights, the task's consent when resuming."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import pickle
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, Callable

from fairseq_diffusion.errors import UserError

logger = logging.getLogger(__name__)

OUR_TASK = "diffusion_translation"

_use_ema = False
OLD_QUERIES = "self_attention.query."  # in checkpoints of ours from before queries, keys and values were one product

_resuming: Any = None  # the task of the training that is reading a checkpoint
_keeps_optimizer = False  # whether that training goes on with the checkpoint's optimiser
_watchers: list[Callable[[str, dict[str, Any], bool], None]] = []


def prefer_ema(use: bool) -> None:
    """From now on, put the averaged weights that ``--store-ema`` kept in the place of the last ones when loading."""
    global _use_ema
    _use_ema = use


def wrap_checkpoint_loading() -> None:
    """Any fairseq: it has no hook where checkpoints are read, so its loading function is replaced, once."""
    from fairseq import checkpoint_utils

    if not hasattr(checkpoint_utils.load_checkpoint_to_cpu, "says_what_to_do"):
        checkpoint_utils.load_checkpoint_to_cpu = _loading_with_advice(checkpoint_utils.load_checkpoint_to_cpu)


def _loading_with_advice(load: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(load)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            state = load(path, *args, **kwargs)
        except (FileNotFoundError, PermissionError):
            raise  # their own words say it all
        except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError, OSError) as error:
            raise UserError(_unreadable(path, error)) from error
        if _resuming is not None:  # the optimiser goes on from the last weights, never from averaged ones
            return with_one_product(_checked_by(_resuming, state), path, _keeps_optimizer)
        state = with_one_product(state, path)
        overrides = dict(zip(("arg_overrides",), args), **kwargs).get("arg_overrides") or {}
        chosen = with_ema(state, path) if overrides.get("use_ema", _use_ema) else state
        for see in _watchers:
            see(path, chosen, chosen is not state)
        return chosen

    load_checkpoint_to_cpu.says_what_to_do = True  # type: ignore[attr-defined]
    return load_checkpoint_to_cpu


@contextlib.contextmanager
def watched_loading(see: Callable[[str, dict[str, Any], bool], None]) -> Iterator[None]:
    """Within it, `see` gets the path of each checkpoint read, its state, and whether averaged weights took the place
    of the last ones."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


def wrap_resuming() -> None:
    """Any fairseq: decoding hands a checkpoint's ``task_state`` to the task, which may refuse it; training does not.
    And a training that is resumed at its last update does one more."""
    from fairseq.trainer import Trainer

    if not hasattr(Trainer.load_checkpoint, "asks_the_task"):
        Trainer.load_checkpoint = _asking_the_task(Trainer.load_checkpoint)


def _asking_the_task(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_checkpoint(self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        global _resuming, _keeps_optimizer
        _resuming, _keeps_optimizer = self.task, not reset_optimizer
        try:
            extra_state = load(self, filename, reset_optimizer, *args, **kwargs)
        finally:
            _resuming = None
        _rest_if_done(self)
        return extra_state

    load_checkpoint.asks_the_task = True  # type: ignore[attr-defined]
    return load_checkpoint


def _rest_if_done(trainer: Any) -> None:
    """fairseq looks for --max-update behind each update, but for --stop-min-lr before an epoch, too."""
    done, wanted = trainer.get_num_updates(), trainer.cfg.optimization.max_update
    if 0 < wanted <= done:
        logger.info(f"this training has done {done} updates, and --max-update is {wanted}: nothing is left to do")
        trainer.cfg.optimization.stop_min_lr = math.inf


def _checked_by(task: Any, state: dict[str, Any]) -> dict[str, Any]:
    """`state` without its configuration, once `task` has accepted it: fairseq sends it to the other ranks, where
    torch >= 2.6 refuses omegaconf's objects, and training goes on with the configuration of the command line."""
    if state.get("task_state"):
        task.load_state_dict(state["task_state"])
    return {**state, "cfg": None}


def with_one_product(state: dict[str, Any], path: str, keeps_optimizer: bool = False) -> dict[str, Any]:
    """`state` with queries, keys and values of self-attention as one product, in its weights and their averages.

    In an optimiser's state they cannot be found: with --fp16 it is one long vector, in which they stood elsewhere.
    """
    if not any(OLD_QUERIES in name for name in state["model"]):
        return state
    if keeps_optimizer and state.get("last_optimizer_state"):
        raise UserError(
            f"{path} was written before queries, keys and values became one product, so the state of its optimiser "
            "does not fit; go on from its weights, with --reset-optimizer or --finetune-from-model"
        )
    extra = state.get("extra_state") or {}
    averages = {name: _one_product(extra[name]) for name in ("ema", "ema_fp32_params") if extra.get(name)}
    return {**state, "model": _one_product(state["model"]), "extra_state": {**extra, **averages}}


def _one_product(weights: dict[str, Any]) -> dict[str, Any]:
    import torch

    found = {}
    for name, value in weights.items():
        if OLD_QUERIES in name:
            others = weights[name.replace(".query.", ".key_value.")]
            found[name.replace(".query.", ".query_key_value.")] = torch.cat([value, others])
        elif OLD_QUERIES.replace("query", "key_value") not in name:
            found[name] = value
    return found


def _unreadable(path: str, error: Exception) -> str:
    """The sentence for a checkpoint that cannot be read: which file, its size, the likely cause, what to do."""
    size = f"{os.path.getsize(path)} bytes" if os.path.isfile(path) else "not a file"
    if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
        cause = "it holds Python objects that torch does not load by default"
        advice = "if you trust its author, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
    elif isinstance(error, KeyError):
        cause, advice = f"it has no entry {error}, so it is no fairseq checkpoint", "pass a file that fairseq wrote"
    else:
        cause = "it is truncated or not a checkpoint"
        advice = "copy it again, or take an earlier one (to resume: --restore-file EARLIER.pt)"
    return f"cannot read the checkpoint {path} ({size}): {cause}; {advice}. torch said: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def is_noise_schedule(key: str) -> bool:
    """Whether an entry of a model belongs to its noise schedule, of which no average makes sense."""
    return ".schedule." in f".{key}"


def with_ema(state: dict[str, Any], path: str) -> dict[str, Any]:
    """`state` with ``extra_state["ema"]`` as its model; a checkpoint of another task without it (AR) stays as it is.

    fairseq averages every entry, also the noise schedule, which is no weight: the one in force is kept.
    """
    ema = (state.get("extra_state") or {}).get("ema")
    if ema:
        in_force = {key: value for key, value in state["model"].items() if is_noise_schedule(key)}
        return {**state, "model": {**ema, **in_force}}
    if task_name(state) == OUR_TASK:
        raise UserError(f"{path} holds no averaged (EMA) weights: train with --store-ema, or drop --use-ema")
    return state


def task_name(state: dict[str, Any]) -> str | None:
    """The task a checkpoint was trained for: in `cfg` (dataclass style) or in `args` (argparse style)."""
    return _entry(_section(state, "task"), "_name") or _entry(state.get("args"), "task")


def model_name(state: dict[str, Any]) -> str | None:
    """The architecture a checkpoint was trained with, from the same places."""
    return _entry(_section(state, "model"), "_name") or _entry(state.get("args"), "arch")


def _section(state: dict[str, Any], name: str) -> Any:
    return _entry(state.get("cfg"), name)


def _entry(config: Any, name: str) -> Any:
    """An entry of a namespace or a mapping (omegaconf's refuses to be asked for what it does not hold), or None."""
    if config is None or isinstance(config, Namespace):
        return getattr(config, name, None)
    return config[name] if name in config else None  # noqa: SIM401
