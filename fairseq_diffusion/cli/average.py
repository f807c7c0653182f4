"""Average the weights of checkpoints: the last K or the best K of a folder, or the files named."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.writing import atomic_write, check_writable

EPOCH = re.compile(r"checkpoint(\d+)\.pt")
UPDATE = re.compile(r"checkpoint_\d+_(\d+)\.pt")
# fairseq writes the value with three decimals, directly followed by a random number that makes the name unique
BEST = re.compile(r"checkpoint\.best_(?P<metric>.+)_(?P<value>-?\d+(?:\.\d{1,3})?)\d*\.pt")

Weights = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inputs", nargs="+", type=Path, required=True, help="a checkpoint folder, or checkpoint files"
    )
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    count = parser.add_mutually_exclusive_group()
    count.add_argument("--last", type=int, metavar="K", help="average the folder's last K checkpoints")
    count.add_argument("--best", type=int, metavar="K", help="average the folder's K best (--keep-best-checkpoints)")
    parser.add_argument(
        "--update-based", action="store_true", help="with --last: checkpoint_E_U.pt files, not those of epochs"
    )
    parser.add_argument("--metric", help="with --best: the metric in the file names (needed if there are several)")
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument("--maximize", action="store_true", default=None, help="with --best: higher is better")
    direction.add_argument(
        "--minimize", action="store_false", dest="maximize", help="with --best: lower is better (usual for loss, ppl)"
    )
    parser.add_argument("--ema", action="store_true", help="take the moving averages that --store-ema kept")
    parser.add_argument("--force", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    check_writable(args.output, args.force)
    paths = chosen_paths(args)
    state = averaged_state(paths, args.ema)
    with atomic_write(args.output) as temporary:
        torch.save(state, temporary)
    print(f"averaged {len(paths)} checkpoint(s) into {args.output}:", *paths, sep="\n  ")
    return 0


def chosen_paths(args: argparse.Namespace) -> list[Path]:
    """The files to average, by the options."""
    if missing := [str(path) for path in args.inputs if not path.exists()]:
        raise UserError(f"no such file or folder: {', '.join(missing)}; check --inputs")
    folders = [path for path in args.inputs if path.is_dir()]
    if args.last is None and args.best is None:
        if folders:
            raise UserError(f"{folders[0]} is a folder: pass --last K or --best K, or name checkpoint files")
        return args.inputs
    if len(args.inputs) != 1 or not folders:
        raise UserError("--last and --best choose from one folder; name one in --inputs, or drop the option")
    if args.best is not None:
        return best_checkpoints(folders[0], args.best, args.metric, args.maximize)
    return last_checkpoints(folders[0], args.last, args.update_based)


def last_checkpoints(folder: Path, count: int, update_based: bool) -> list[Path]:
    """The `count` checkpoints of the highest epochs, or updates, newest first."""
    pattern, name = (UPDATE, "checkpoint_EPOCH_UPDATE.pt") if update_based else (EPOCH, "checkpointEPOCH.pt")
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    hint = "drop --update-based for those of epochs" if update_based else "add --update-based for those of updates"
    paths = [path for _, path in sorted(found, reverse=True)]
    check_count(count, paths, f"named {name} in {folder}", f"; or {hint}")
    return paths[:count]


def best_checkpoints(folder: Path, count: int, metric: str | None, maximize: bool | None) -> list[Path]:
    """The `count` best checkpoints by the value in their names, best first."""
    matches = [(match, path) for path in sorted(folder.iterdir()) if (match := BEST.fullmatch(path.name))]
    metrics = sorted({match["metric"] for match, _ in matches})
    if metric is None and len(metrics) > 1:
        raise UserError(f"{folder} holds the best checkpoints by {', '.join(metrics)}; choose one with --metric")
    metric = metric or (metrics[0] if metrics else "METRIC")
    if maximize is None:
        maximize = not metric.endswith(("loss", "ppl"))
    found = [(float(match["value"]), path) for match, path in matches if match["metric"] == metric]
    found.sort(key=lambda entry: -entry[0] if maximize else entry[0])
    others = [other for other in metrics if other != metric]
    advice = f", or --last K; fairseq writes one only if its {metric} is as good as the worst that it has kept"
    if not found:
        there = f" (there are some by {', '.join(others)}: --metric)" if others else ""
        advice = f"; train with --keep-best-checkpoints, or pass --last K{there}"
    what = f"named checkpoint.best_{metric}_VALUE.pt in {folder}"
    check_count(count, [path for _, path in found], what, advice)
    return newest_of_equals(found, count, metric)


def newest_of_equals(found: list[tuple[float, Path]], count: int, metric: str) -> list[Path]:
    """The first `count`; among those with the value of the last of them, which may be more, the newest by updates."""
    value = found[count - 1][0]
    equal = [path for own, path in found if own == value]
    better = [path for own, path in found[:count] if own != value]
    taken = count - len(better)
    if taken < len(equal):
        equal.sort(key=lambda path: updates(load_checkpoint(path)), reverse=True)
        print(f"{len(equal)} checkpoints have a {metric} of {value:g}; the newest {taken} of them are taken")
    return better + equal[:taken]


def check_count(count: int, paths: list[Path], what: str, advice: str) -> None:
    """Refuse to average more checkpoints than there are, or none; the sentence names those that are there."""
    if 0 < count <= len(paths):
        return
    names = f" ({', '.join(path.name for path in paths)})" if paths else ""
    wanted = f"pass between 1 and {len(paths)}" if paths else "none can be averaged"
    raise UserError(f"cannot average {count} checkpoints {what}: there are {len(paths)}{names}; {wanted}{advice}")


def averaged_state(paths: list[Path], ema: bool) -> dict[str, Any]:
    """The newest checkpoint without optimizer and moving average, its weights replaced by the mean over all files.

    One file is in memory at a time besides the running sum and the newest.
    """
    newest: dict[str, Any] = {}
    total: Weights = {}
    for path in paths:
        state = load_checkpoint(path)
        weights = weights_of(state, ema, path)
        if newest:
            check_same_shapes(newest["model"], state["model"], paths[0], path)
        for key, value in weights.items():  # the sum is in fp64
            total[key] = total[key].add_(value) if key in total else value.to(torch.float64, copy=True)
        if not newest or updates(state) >= updates(newest):
            newest = state
    mean = {key: (value / len(paths)).to(newest["model"][key].dtype) for key, value in total.items()}
    return exported(newest, {**newest["model"], **mean}, paths, ema)


def exported(newest: dict[str, Any], model: Weights, paths: list[Path], ema: bool) -> dict[str, Any]:
    """The newest checkpoint with the weights `model`, without what only resuming needs (optimizer, EMA)."""
    extra = {key: value for key, value in newest["extra_state"].items() if key not in ("ema", "ema_fp32_params")}
    extra["averaged"], extra["averaged_ema"] = [str(path) for path in paths], ema
    kept = {key: value for key, value in newest.items() if key != "last_optimizer_state"}
    return {**kept, "model": model, "extra_state": extra}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A fairseq checkpoint on the CPU, read without executing code from it."""
    compat.allow_argparse_checkpoints()
    if path.is_file() and (found := compat.damage(str(path))):
        raise UserError(f"{path} is damaged: {found}; copy it again, or leave it out")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # another kind of file can raise any exception in the unpickler
        raise UserError(f"{path} cannot be read as a checkpoint: {why_unreadable(error)}") from error
    if wrong := compat.malformed(state):
        raise UserError(f"{path} is not a fairseq checkpoint: {wrong}")
    state["extra_state"] = state.get("extra_state") or {}
    return state


def why_unreadable(error: Exception) -> str:
    """The cause in a few words; torch's own message for refused objects advises to load them anyway."""
    if refused := compat.refused_object(error):
        return compat.holds(refused)
    return f"it is damaged or no torch file ({type(error).__name__})"


def weights_of(state: dict[str, Any], ema: bool, path: Path) -> Weights:
    """The weights of a checkpoint, or their moving average; without counters, flags and the noise schedule, which are
    taken from the newest checkpoint."""
    entries = state["extra_state"].get("ema") if ema else state["model"]
    if entries is None:
        raise UserError(f"{path} holds no moving average; train with --store-ema, or drop --ema")
    if ema:
        check_same_shapes(state["model"], entries, path, f"the moving average in {path}")
    compat.check_finite(str(path), entries, "its training went wrong; leave it out")
    floating = {key: value for key, value in entries.items() if torch.is_tensor(value) and value.is_floating_point()}
    return {key: value for key, value in floating.items() if not compat.is_noise_schedule(key)}


def check_same_shapes(wanted: Weights, found: Weights, wanted_in: Any, found_in: Any) -> None:
    """Refuse a checkpoint whose entries differ from the first one's in name or shape."""
    differing = sorted(wanted.keys() ^ found.keys())
    differing += [key for key in wanted if key in found and shape(wanted[key]) != shape(found[key])]
    if differing:
        first = differing[0]
        raise UserError(
            f"{found_in} is of another model than {wanted_in}: {len(differing)} entries differ in name or shape, first "
            f"{first} ({describe(found, first)}, not {describe(wanted, first)}); average one training's files"
        )


def shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if torch.is_tensor(value) else None


def describe(weights: Weights, key: str) -> str:
    return f"shape {shape(weights[key])}" if key in weights else "absent"


def updates(state: dict[str, Any]) -> int:
    """The number of updates of a checkpoint, the highest in the newest one."""
    history = state.get("optimizer_history") or [{}]
    return history[-1].get("num_updates", 0)
