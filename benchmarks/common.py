"""What the benchmarks share: their flags, timing calls against each other, and the table, printed and as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairseq_diffusion import __version__, compat
from fairseq_diffusion.compat.installed import version
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.writing import atomic_write, check_writable
from fairseq_diffusion.reporting.facts import processor
from fairseq_diffusion.reporting.table import cell, table

Row = dict[str, Any]
Call = Callable[[], Any]
VERSUS = {
    "what": ("what", ""),
    "ms": ("ms", ".3f"),
    "IQR": ("iqr_ms", ".3f"),
    "against": ("baseline_ms", ".3f"),
    "ratio": ("ratio", ".2f"),
}
OPTIONAL = ("ctranslate2", "triton", "apex")  # named with their versions where they are installed


class Parser(argparse.ArgumentParser):
    """Refuses before any work what cannot be measured or written."""

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:  # type: ignore[override]
        options = super().parse_args(*args, **kwargs)
        try:
            check(options)
        except UserError as error:
            self.error(str(error))
        torch.set_num_threads(options.threads)
        if options.quick:
            options.repeats = 2
        return options


def check(options: argparse.Namespace) -> None:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch finds no GPU here; drop it to measure the CPU")
    if options.output:
        check_writable(options.output, options.force)


def flags(about: str | None, repeats: int) -> Parser:
    """The flags of every benchmark."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cpu or cuda (cpu)")
    # one: libraries whose threads wait by spinning slow each other down, CTranslate2 beside torch to a third
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"calls timed ({repeats})")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, two calls: does it run? times mean nothing")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--force", action="store_true", help="replace --output if it exists")
    return parser


def filled(options: argparse.Namespace, sizes: Mapping[str, Mapping[str, Any]]) -> argparse.Namespace:
    """Set options that were not given to the defaults of the device, tiny ones with --quick."""
    for name, value in sizes["quick" if options.quick else options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


# -- timing ---------------------------------------------------------------------------------------------------------


def elapsed(call: Call, device: str) -> float:
    """Wall time in ms of a call, with all that it launched."""
    synchronize(device)
    begun = time.perf_counter()
    call()
    synchronize(device)
    return 1000 * (time.perf_counter() - begun)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(call: Call, device: str, repeats: int) -> list[float]:
    """Wall time of each call, after one that is not counted."""
    return [elapsed(call, device) for _ in range(repeats + 1)][1:]


def interleaved(calls: Mapping[str, Call], device: str, repeats: int) -> dict[str, list[float]]:
    """Wall times of all calls in turns (A B A B ...), so that a busy machine slows all alike; the first round, which
    warms up, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            times[name].append(elapsed(call, device))
    return {name: found[1:] for name, found in times.items()}


def median(times: Sequence[float]) -> float:
    return float(np.median(times))


def iqr(times: Sequence[float]) -> float:
    """The spread: between the quartiles."""
    low, high = np.percentile(times, (25, 75))
    return float(high - low)


def versus(what: str, call: Call, baseline: Call, options: argparse.Namespace) -> Row:
    """Median and spread of a call and of its baseline in turns; ratio > 1: faster."""
    times = interleaved({"baseline": baseline, "ours": call}, options.device, options.repeats)
    ours, theirs = times["ours"], times["baseline"]
    row = {
        "what": what,
        "ms": median(ours),
        "iqr_ms": iqr(ours),
        "baseline_ms": median(theirs),
        "baseline_iqr_ms": iqr(theirs),
        "ratio": median(theirs) / median(ours),
        "repeats": options.repeats,
    }
    progress(f"{what}: {row['ms']:.3f} ms, {row['ratio']:.2f}")
    return row


def progress(line: str) -> None:
    """Print a result to stderr at once, so that a killed run has shown it; the table comes last."""
    print(line, file=sys.stderr, flush=True)


# -- the report -----------------------------------------------------------------------------------------------------


def report(
    rows: Sequence[Row],
    options: argparse.Namespace,
    columns: dict[str, tuple[str, str]] = VERSUS,
    also: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """The table, whose `columns` are a heading's key in the rows and its format; what it ran on; and both as JSON,
    with what is `also` to be kept but not printed here."""
    print_table(rows, columns)
    print(environment_text(options, more))
    if options.output:
        given = {key: named(value) for key, value in vars(options).items() if key not in ("output", "force")}
        record = {**environment(options), **more, "options": given, "rows": rows, **(also or {})}
        with atomic_write(options.output) as temporary:
            temporary.write_text(json.dumps(record, indent=1, default=str) + "\n")


def named(value: Any) -> Any:
    """An option's value; of a path the name alone, so that results do not name folders of a machine."""
    return value.name if isinstance(value, Path) else value


def print_table(rows: Sequence[Row], columns: dict[str, tuple[str, str]]) -> None:
    """A column without a format holds words; a dash where a row has nothing."""
    cells = [[cell(row.get(key), form) for key, form in columns.values()] for row in rows]
    print(table(list(columns), cells, left=[label for label, (_, form) in columns.items() if not form]))


def environment_text(options: argparse.Namespace, more: dict[str, Any]) -> str:
    """What it ran on, in a line."""
    facts = environment(options)
    versions = [f"{name} {number}" for name, number in facts.pop("versions").items()]
    return ", ".join([*versions, *[f"{key} {value}" for key, value in {**facts, **more}.items()]])


def environment(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "versions": versions(),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "cpu": processor(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **compat.distributions(),
        "fairseq_diffusion": __version__,
        **{name: number for name in OPTIONAL if (number := version(name))},
    }
