"""The only room that knows which fairseq, torch, hydra and apex it stands on.

Each repair names the versions it is for and does nothing elsewhere.  Supported: fairseq 0.12.2 (Python 3.10) and
fairseq-fixed 0.12.3.1 (Python 3.11 and 3.12), torch 2.1 and newer.  hydra 1.0 / omegaconf 2.0 (below the first) and
hydra 1.3 / omegaconf 2.3 (below the second) need no repair for what this package uses; both are in the smoke test.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import pickle
import sys
from importlib import metadata, util
from types import ModuleType
from typing import Any, Callable

from fairseq_diffusion.errors import UserError

OLDEST_FAIRSEQ = (0, 12)
OLDEST_TORCH = (2, 1)
DISTRIBUTIONS = ("fairseq", "fairseq-fixed")
OUR_TASK = "diffusion_translation"

INSTALL_LINES = """\
  Python 3.10:          pip install "pip<24.1" && pip install fairseq==0.12.2
  Python 3.11 or 3.12:  pip install "pip<24.1" "setuptools<80" "cython<3.1" wheel numpy torch
                        pip install --no-build-isolation fairseq-fixed==0.12.3.1"""


# ---------------------------------------------------------------------------------------------- which fairseq


def distributions() -> dict[str, str]:
    """Installed distributions that provide the module `fairseq`, with their versions."""
    found = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def version_tuple(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: "2.13.0+cpu" -> (2, 13, 0), "2.11.0a0" -> (2, 11)."""
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def fairseq_problem() -> str | None:
    """What is wrong with the fairseq of this Python, in a sentence; None if it will do."""
    if util.find_spec("fairseq") is None:
        other = " (fairseq2 is installed, but it is another library with another interface)"
        return "fairseq is not installed" + (other if util.find_spec("fairseq2") else "")
    try:
        fairseq = importlib.import_module("fairseq")
    except Exception as error:  # stock fairseq on Python 3.11 fails with ValueError, a broken dependency with anything
        return f"fairseq is installed but cannot be imported ({type(error).__name__}: {error}){_copies()}"
    return _version_problem(fairseq) or _extension_problem(fairseq)


def _copies() -> str:
    """Names both distributions if both are there: they write into the same folder and break each other."""
    found = [f"{name} {version}" for name, version in distributions().items()]
    if len(found) < 2:
        return ""
    return f"; {' and '.join(found)} are both installed and overwrite each other: pip uninstall both, install one"


def _version_problem(fairseq: ModuleType) -> str | None:
    version = getattr(fairseq, "__version__", None)
    if version is None:
        return f"the module fairseq found in {list(fairseq.__path__)} is a folder of that name and not fairseq"
    if version_tuple(version)[:2] < OLDEST_FAIRSEQ:
        return f"fairseq {version} is too old: 0.12 or newer is needed"
    return None


def _extension_problem(fairseq: ModuleType) -> str | None:
    """A source tree put on the path without a build lacks the compiled batching code, and fails only when training."""
    try:
        importlib.import_module("fairseq.data.data_utils_fast")
    except Exception as error:
        where = os.path.dirname(fairseq.__file__ or "")
        return f"fairseq in {where} lacks its compiled part fairseq.data.data_utils_fast ({error}){_copies()}"
    return None


def require_fairseq() -> None:
    """Raise :class:`UserError` with the install lines unless a fairseq we can stand on is there."""
    problem = fairseq_problem()
    if problem:
        python = ".".join(map(str, sys.version_info[:3]))
        raise UserError(f"{problem}. This is Python {python}; install fairseq with\n{INSTALL_LINES}")


# ---------------------------------------------------------------------------------------------- repairs


def patch() -> None:
    """Apply every repair this installation needs; calling it again changes nothing."""
    require_fairseq()
    allow_argparse_checkpoints()
    allow_tensors_between_ranks()
    avoid_broken_apex()
    avoid_encoder_fast_path()
    wrap_checkpoint_loading()
    wrap_resuming()


def allow_argparse_checkpoints() -> None:
    """torch >= 2.6 refuses ``argparse.Namespace``, which fairseq's argparse-style models keep in their checkpoints."""
    import torch

    allow = getattr(torch.serialization, "add_safe_globals", None)
    if allow is not None:  # absent before torch 2.4, where loading is not restricted either
        allow([argparse.Namespace])


def allow_tensors_between_ranks() -> None:
    """torch >= 2.6 refuses what stands for a tensor while fairseq's first rank sends a checkpoint to the others."""
    import torch
    from fairseq.distributed import utils

    allow = getattr(torch.serialization, "add_safe_globals", None)
    if allow is not None:
        allow([utils._TensorPlaceholder])


def avoid_encoder_fast_path() -> None:
    """fairseq 0.12.2 under torch 2: its encoder layer calls a fused torch operation without its mask type in eval mode.

    The operation then fails with "Mask Type should be defined", or ignores the mask.  The layer asks `can_use_fastpath`
    first; that now always answers no.  fairseq-fixed has no such path: nothing is done.
    """
    from fairseq.modules import transformer_layer

    layer = transformer_layer.TransformerEncoderLayerBase
    if "_load_from_state_dict" in vars(layer):  # the method that packs the fused operation's weights
        layer.can_use_fastpath = property(lambda self: False, lambda self, wanted: None)


def apex_state() -> str:
    """One of "absent", "healthy", "foreign" (an unrelated package of that name) and "broken" (no CUDA extension)."""
    spec = util.find_spec("apex")
    if spec is None:
        return "absent"
    folders = spec.submodule_search_locations or ()
    if not any(os.path.exists(os.path.join(folder, "normalization")) for folder in folders):
        return "foreign"  # told by its files: importing an unrelated package could do anything
    try:
        importlib.import_module("fused_layer_norm_cuda")
        importlib.import_module("apex.normalization").FusedLayerNorm(8)
    except Exception:  # a half-built extension fails in many ways: missing symbols, CUDA versions, missing files
        return "broken"
    return "healthy"


def avoid_broken_apex() -> None:
    """Any fairseq with an apex that is not NVIDIA's or lacks its CUDA extensions: use torch's LayerNorm and Adam.

    fairseq looks at apex when it is imported (LayerNorm) and again when it builds Adam, so the flag of the first is
    cleared and further imports of apex are refused.  A healthy apex is left to fairseq.
    """
    if apex_state() not in ("foreign", "broken"):
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]
    sys.modules["apex"] = None  # type: ignore[assignment]
    from fairseq.modules import layer_norm  # only now: with a broken apex on the path its import may fail

    layer_norm.has_fused_layernorm = False


# ---------------------------------------------------------------------------------------------- checkpoints

_use_ema = False
_resuming: Any = None  # the task of the training that is reading a checkpoint


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
        except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, OSError) as error:
            raise UserError(_unreadable(path, error)) from error
        if _resuming is not None:  # the optimiser goes on from the last weights, never from averaged ones
            return _checked_by(_resuming, state)
        overrides = dict(zip(("arg_overrides",), args), **kwargs).get("arg_overrides") or {}
        return with_ema(state, path) if overrides.get("use_ema", _use_ema) else state

    load_checkpoint_to_cpu.says_what_to_do = True  # type: ignore[attr-defined]
    return load_checkpoint_to_cpu


def wrap_resuming() -> None:
    """Any fairseq: decoding hands a checkpoint's ``task_state`` to the task, which may refuse it; training does not."""
    from fairseq.trainer import Trainer

    if not hasattr(Trainer.load_checkpoint, "asks_the_task"):
        Trainer.load_checkpoint = _asking_the_task(Trainer.load_checkpoint)


def _asking_the_task(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _resuming
        _resuming = self.task
        try:
            return load(self, *args, **kwargs)
        finally:
            _resuming = None

    load_checkpoint.asks_the_task = True  # type: ignore[attr-defined]
    return load_checkpoint


def _checked_by(task: Any, state: dict[str, Any]) -> dict[str, Any]:
    """`state` without its configuration, once `task` has accepted it: fairseq sends it to the other ranks, where
    torch >= 2.6 refuses omegaconf's objects, and training goes on with the configuration of the command line."""
    if state.get("task_state"):
        task.load_state_dict(state["task_state"])
    return {**state, "cfg": None}


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
    if _task_name(state) == OUR_TASK:
        raise UserError(f"{path} holds no averaged (EMA) weights: train with --store-ema, or drop --use-ema")
    return state


def _task_name(state: dict[str, Any]) -> str | None:
    """The task a checkpoint was trained for: in `cfg` (dataclass style) or in `args` (argparse style)."""
    task = (state.get("cfg") or {}).get("task") or state.get("args")
    return task.get("_name") if hasattr(task, "get") else getattr(task, "_name", None) or getattr(task, "task", None)
