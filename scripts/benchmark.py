"""What the benchmarks share: their flags, timing a call, and the table, printed and as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
VERSUS = {"what": ("what", ""), "ms": ("ms", ".3f"), "against": ("baseline_ms", ".3f"), "ratio": ("ratio", ".2f")}


def flags(about: str | None, repeats: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"calls timed ({repeats})")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser


def milliseconds(call: Callable[[], Any], device: str, repeats: int) -> list[float]:
    """Wall time of each call, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begun))
    return times[1:]


def versus(what: str, call: Callable[[], Any], baseline: Callable[[], Any], options: argparse.Namespace) -> Row:
    """Median of a call against that of its baseline in the same run; ratio > 1: faster."""
    ours, theirs = (
        statistics.median(milliseconds(timed, options.device, options.repeats)) for timed in (call, baseline)
    )
    return {"what": what, "ms": ours, "baseline_ms": theirs, "ratio": theirs / ours}


def report(
    rows: Sequence[Row], options: argparse.Namespace, columns: dict[str, tuple[str, str]] = VERSUS, **more: str
) -> None:
    """The table, whose `columns` are a heading's key in the rows and its format; what it ran on; and both as JSON."""
    lines = [list(columns), *[[format(row[key], form) for key, form in columns.values()] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for first, *numbers in lines:
        print("  ".join([first.ljust(widths[0]), *[cell.rjust(w) for cell, w in zip(numbers, widths[1:])]]))
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    stands_on = {**versions, "device": device_name(options.device), **more}
    print(", ".join(f"{key} {value}" for key, value in stands_on.items()))
    if options.output:
        record = {**stands_on, "options": vars(options), "rows": rows}
        options.output.write_text(json.dumps(record, indent=2, default=str) + "\n")


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"
