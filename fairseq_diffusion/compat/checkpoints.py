"""How fairseq reads checkpoints: error messages, averaged weights, and the task's checks when resuming."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import pickle
import re
import struct
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, Callable

from fairseq_diffusion.compat.archive import damage, malformed, unusable, without_settings
from fairseq_diffusion.compat.finite import check_finite
from fairseq_diffusion.compat.renamed import fill_up, rename_keys, with_new_names
from fairseq_diffusion.compat.wrapping import wrap_once
from fairseq_diffusion.errors import UserError

logger = logging.getLogger(__name__)

OUR_TASK = "diffusion_translation"
UNREADABLE = (  # what torch and fairseq raise at a damaged file
    *(pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError, OSError),
    *(ValueError, AttributeError, IndexError, MemoryError, OverflowError, AssertionError, struct.error),
)
# An environment variable, because it reaches every place where a checkpoint is read, and is never stored in one.
LET_RUN_CODE = "FAIRSEQ_DIFFUSION_LET_CHECKPOINTS_RUN_CODE"
UNRESTRICTED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # torch's, from 2.6 on; older ones load any object
_use_ema = False
_resuming: Any = None  # the trainer that is reading a checkpoint
_watchers: list[Callable[[str, dict[str, Any], bool], None]] = []


def prefer_ema(use: bool) -> None:
    """From now on, load the averaged weights that ``--store-ema`` kept in place of the last ones."""
    global _use_ema
    _use_ema = use


def wrap_checkpoint_loading() -> None:
    """Any fairseq: it has no hook where checkpoints are read, so its loading function is replaced, once."""
    from fairseq import checkpoint_utils

    wrap_once(checkpoint_utils, "load_checkpoint_to_cpu", _loading)


def _loading(load: Callable[..., dict[str, Any]], path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    if os.path.isfile(path) and (found := damage(path)):
        raise UserError(_unreadable(path, RuntimeError(found)))
    read = functools.partial(_whole, load, path, *args, **kwargs)
    try:
        state = read()
    except (FileNotFoundError, PermissionError):
        raise  # their messages need no addition
    except UNREADABLE as error:
        if refused_object(error) is None or os.environ.get(LET_RUN_CODE) != "1":
            raise UserError(_unreadable(path, error)) from error
        state = _with_its_code(read, path, error)
    if _resuming is not None:  # the optimiser continues from the last weights, never from averaged ones
        check_finite(f"the checkpoint {path}", _continued(state), "take an earlier one: --restore-file EARLIER.pt")
        return _checked_by(_resuming, state, path)
    overrides = dict(zip(("arg_overrides",), args), **kwargs).get("arg_overrides") or {}
    chosen = with_ema(state, path) if overrides.get("use_ema", _use_ema) else state
    check_finite(f"the checkpoint {path}", chosen["model"], "its training went wrong; take an earlier one")
    for see in _watchers:
        see(path, chosen, chosen is not state)
    return chosen


def _whole(load: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A checkpoint with all parts that are read of it, under today's names."""
    state = load(*args, **kwargs)
    if wrong := malformed(state) or without_settings(state):
        raise ValueError(wrong)
    _rename(state)
    return state


def _with_its_code(load: Callable[[], dict[str, Any]], path: str, refused: Exception) -> dict[str, Any]:
    """A checkpoint that torch has refused, loaded with all objects in it."""
    logger.warning(f"{path} holds a {refused_object(refused)}: it may run code, as {LET_RUN_CODE}=1 lets it")
    os.environ[UNRESTRICTED] = "1"
    try:
        return load()
    finally:
        os.environ.pop(UNRESTRICTED)


@contextlib.contextmanager
def watched_loading(see: Callable[[str, dict[str, Any], bool], None]) -> Iterator[None]:
    """Within it, `see` is called with the path and the state of each checkpoint read, and with whether averaged weights
    replaced the last ones."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


def around_resuming(around: Callable[..., Any]) -> None:
    """Any fairseq: it has no hook between a training's set-up and the first look at its checkpoints, where
    `around(load, cfg, trainer, ...)` is called in place of `load`."""
    from fairseq import checkpoint_utils

    wrap_once(checkpoint_utils, "load_checkpoint", around)


def wrap_resuming() -> None:
    """Any fairseq: decoding hands a checkpoint's ``task_state`` to the task, which may refuse it; training does not.
    And a training that is resumed at its last update does one more."""
    from fairseq.trainer import Trainer

    wrap_once(Trainer, "load_checkpoint", _resuming_with_task)


def _resuming_with_task(load: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    global _resuming
    _resuming = trainer
    try:
        extra_state = load(trainer, *args, **kwargs)
        if extra_state is not None and (wrong := unusable(trainer.optimizer)):
            raise ValueError(wrong)
    except (UserError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        sentence = _other_training(error)
        if sentence is None and not isinstance(error, UNREADABLE):
            raise
        logger.debug("the training does not continue", exc_info=True)
        path = (args or tuple(kwargs.values()))[0]
        raise UserError(sentence or _unusable_sentence(path, error)) from error
    finally:
        _resuming = None
    _stop_if_done(trainer)
    return extra_state


def _other_training(error: Exception) -> str | None:
    """The sentence for a checkpoint of another model, criterion or optimiser, of which fairseq's exceptions have no
    type of their own."""
    said = str(error)
    if type(error) is Exception and said.startswith("Cannot load model parameters"):
        cause = str(error.__context__ or "").splitlines()
        detail = next((line.strip() for line in cause if "size mismatch" in line), cause[-1].strip() if cause else "")
        path = said.split(" from checkpoint ")[-1].split(";")[0]
        return (
            f"{path} is of another model than --arch and its flags describe ({detail[:200]}); pass the flags of that "
            "training, or another --save-dir for a new one"
        )
    if isinstance(error, AssertionError) and "does not match; please reset the optimizer" in said:
        return f"this training is not the checkpoint's: {said}; or pass another --save-dir for a new training"
    return None


def _unusable_sentence(path: Any, error: Exception) -> str:
    return (
        f"cannot continue from {path}: its optimiser's state, averages or counts are not as fairseq wrote them; take "
        "an earlier checkpoint (--restore-file EARLIER.pt), or continue with its weights alone (--reset-optimizer "
        f"--reset-dataloader --reset-meters). It ended with: {type(error).__name__}, {first_line(error)}"
    )


def _stop_if_done(trainer: Any) -> None:
    """fairseq checks --max-update only after an update, but --stop-min-lr before an epoch, too."""
    done, wanted = trainer.get_num_updates(), trainer.cfg.optimization.max_update
    if 0 < wanted <= done:
        logger.info(f"this training has done {done} updates, and --max-update is {wanted}: nothing is left to do")
        trainer.cfg.optimization.stop_min_lr = math.inf


def _checked_by(trainer: Any, state: dict[str, Any], path: str) -> dict[str, Any]:
    """`state` without its configuration, once the task has accepted it; an AR model's becomes one for the model that is
    trained.  fairseq sends it to the other ranks, where torch >= 2.6 refuses omegaconf's objects, and the training goes
    on with the configuration of the command line."""
    if state.get("task_state"):
        trainer.task.load_state_dict(state["task_state"])
    if hasattr(trainer.task, "starting_state"):
        finetunes = path == trainer.cfg.checkpoint.finetune_from_model
        state = trainer.task.starting_state(state, trainer.get_model(), path, finetunes)
    return {**state, "cfg": None}


def _continued(state: dict[str, Any]) -> dict[str, Any]:
    """The tensors that a training goes on with."""
    extra = state.get("extra_state") or {}
    parts = {"model": state["model"], "optimizer": state.get("last_optimizer_state")}
    return parts | {name: extra.get(name) for name in ("ema", "ema_fp32_params")}


def _rename(state: dict[str, Any]) -> None:
    """Names and flags of today in the configuration of a checkpoint of ours: fairseq 0.12.2 refuses names that a task
    does not have, and later ones drop them."""
    if task_name(state) == OUR_TASK:
        for section in filter(None, (_section(state, "task"), _section(state, "model"))):
            with_new_names(section)
        if (config := _config_of(model_name(state))) and (section := _section(state, "model")) is not None:
            fill_up(section, config)
        for averages in ("ema", "ema_fp32_params"):  # which fairseq restores without asking the model
            rename_keys((state.get("extra_state") or {}).get(averages) or {})


def _config_of(architecture: str | None) -> type | None:
    """The dataclass of the model's flags."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY

    return MODEL_DATACLASS_REGISTRY.get(ARCH_MODEL_NAME_REGISTRY.get(architecture, architecture))


def _unreadable(path: str, error: Exception) -> str:
    """The sentence for a checkpoint that cannot be read: which file, its size, the likely cause, what to do."""
    size = f"{os.path.getsize(path)} bytes" if os.path.isfile(path) else "not a file"
    if found := refused_object(error):
        return f"cannot read the checkpoint {path} ({size}): {holds(found)}; ask its author for a file without them"
    if isinstance(error, KeyError) and isinstance(error.args[0], str):
        cause, advice = f"it has no entry {error}, so it is no fairseq checkpoint", "pass a file that fairseq wrote"
    else:
        cause = "it is truncated, damaged or not a checkpoint"
        advice = "copy it again, or take an earlier one (to resume: --restore-file EARLIER.pt)"
    return f"cannot read the checkpoint {path} ({size}): {cause}; {advice}. torch said: {first_line(error)}"


def refused_object(error: Exception) -> str | None:
    """The name of the object for which torch has refused a file; None for another error."""
    found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    return found and found[1]


def holds(name: str) -> str:
    return f"it holds a {name}, and only tensors, numbers, text and containers are loaded, since others can run code"


def first_line(error: Exception) -> str:
    """torch's messages may begin with the advice to load a file with its code, and have the cause behind it."""
    said = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0][:200]


def is_noise_schedule(key: str) -> bool:
    """Whether an entry of a model belongs to its noise schedule or time sampler, of which no average makes sense."""
    return any(f".{part}." in f".{key}" for part in ("schedule", "time_sampler"))


def with_ema(state: dict[str, Any], path: str) -> dict[str, Any]:
    """`state` with ``extra_state["ema"]`` as its model; a checkpoint of another task without it (AR) is unchanged.

    fairseq averages every entry, also the noise schedule, which is no weight: the current one is kept.
    """
    ema = (state.get("extra_state") or {}).get("ema")
    if ema:
        current = {key: value for key, value in state["model"].items() if is_noise_schedule(key)}
        return {**state, "model": {**ema, **current}}
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
