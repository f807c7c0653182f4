"""How fairseq reads checkpoints: error messages, averaged weights, and the task's checks when resuming."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
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
    *(ValueError, AttributeError, IndexError, MemoryError, OverflowError, AssertionError),
)
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
    try:
        state = load(path, *args, **kwargs)
        if wrong := malformed(state) or without_settings(state):
            raise ValueError(wrong)
        _rename(state)
    except (FileNotFoundError, PermissionError):
        raise  # their messages need no addition
    except UNREADABLE as error:
        raise UserError(_unreadable(path, error)) from error
    if _resuming is not None:  # the optimiser continues from the last weights, never from averaged ones
        check_finite(f"the checkpoint {path}", _continued(state), "take an earlier one: --restore-file EARLIER.pt")
        return _checked_by(_resuming, state, path)
    overrides = dict(zip(("arg_overrides",), args), **kwargs).get("arg_overrides") or {}
    chosen = with_ema(state, path) if overrides.get("use_ema", _use_ema) else state
    check_finite(f"the checkpoint {path}", chosen["model"], "its training went wrong; take an earlier one")
    for see in _watchers:
        see(path, chosen, chosen is not state)
    return chosen


def wrap_model_building() -> None:
    """Any fairseq: a checkpoint whose configuration does not describe its weights ends in many kinds of exceptions."""
    from fairseq import checkpoint_utils

    wrap_once(checkpoint_utils, "load_model_ensemble_and_task", _building)


def _building(load: Callable[..., Any], filenames: list[str], *args: Any, **kwargs: Any) -> Any:
    from omegaconf.errors import OmegaConfBaseException

    names = " or ".join(map(str, filenames))
    try:
        return load(filenames, *args, **kwargs)
    except OSError:
        raise  # its message needs no addition
    except UserError as error:
        if any(str(name) in str(error) for name in filenames):
            raise
        raise UserError(f"{error} (while {names} was loaded)") from error
    except (*UNREADABLE, OmegaConfBaseException, NotImplementedError, ZeroDivisionError, SyntaxError) as error:
        logger.debug("the model was not built", exc_info=True)
        raise UserError(
            f"cannot build the model of {names}: its weights, its configuration and the data do not go together; take "
            f"the data-bin it was trained on, or another checkpoint. It ended with: {type(error).__name__}, "
            f"{_first_line(error)}"
        ) from error


@contextlib.contextmanager
def watched_loading(see: Callable[[str, dict[str, Any], bool], None]) -> Iterator[None]:
    """Within it, `see` is called with the path and the state of each checkpoint read, and with whether averaged weights
    replaced the last ones."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


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
        f"--reset-dataloader --reset-meters). It ended with: {type(error).__name__}, {_first_line(error)}"
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
    if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
        cause = "it holds Python objects that torch does not load by default"
        advice = "if you trust its author, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
    elif isinstance(error, KeyError):
        cause, advice = f"it has no entry {error}, so it is no fairseq checkpoint", "pass a file that fairseq wrote"
    else:
        cause = "it is truncated, damaged or not a checkpoint"
        advice = "copy it again, or take an earlier one (to resume: --restore-file EARLIER.pt)"
    return f"cannot read the checkpoint {path} ({size}): {cause}; {advice}. torch said: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
