"""The forms of one operation: the same answers first, then their times in turns, beside the bandwidth of a copy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import torch
from common import Call, Row, elapsed, interleaved, iqr, median, milliseconds, progress
from torch import Tensor

COLUMNS = {
    "what": ("what", ""),
    "form": ("form", ""),
    "N": ("N", "d"),
    "V": ("V", "d"),
    "D": ("D", "d"),
    "ms": ("ms", ".3f"),
    "IQR": ("iqr_ms", ".3f"),
    "ns a token": ("ns_per_token", ".0f"),
    "GB/s": ("gb_per_second", ".1f"),
    "of a copy": ("of_copy", ".0%"),
    "peak GB": ("peak_gb", ".2f"),
    "ratio": ("ratio", ".2f"),
}


class Work(NamedTuple):
    """What all forms of an operation have to do."""

    what: str
    shape: dict[str, int]  # as in the table: N, V, D
    tokens: int | None = None
    moved: float | None = None  # bytes, to and from memory


def copy_bandwidth(options: argparse.Namespace) -> float:
    """GB/s of copying more than caches hold, read and written."""
    size = 2**16 if options.quick else 2**26 if options.device == "cpu" else 2**28
    source = torch.rand(size, device=options.device)
    target = torch.empty_like(source)
    times = milliseconds(lambda: target.copy_(source), options.device, max(options.repeats, 5))
    return 2 * source.numel() * source.element_size() / min(times) / 1e6


def in_turns(work: Work, forms: Mapping[str, Call], copy: float, options: argparse.Namespace) -> list[Row]:
    """A row for each form; the first is the baseline of the ratios."""
    peaks = {form: peak(call, options.device) for form, call in forms.items()}
    times = interleaved(forms, options.device, options.repeats)
    baseline = median(next(iter(times.values())))
    rows = [
        {
            "what": work.what,
            "form": form,
            **work.shape,
            "ms": median(found),
            "iqr_ms": iqr(found),
            "baseline_ms": baseline,
            "ratio": baseline / median(found),
            "repeats": options.repeats,
            **rates(work, median(found), copy),
            "peak_gb": peaks[form],
        }
        for form, found in times.items()
    ]
    found = ", ".join(f"{row['form']} {row['ms']:.3f} ms ({row['ratio']:.2f})" for row in rows)
    progress(f"{work.what} {work.shape or ''}: {found}")
    return rows


def rates(work: Work, ms: float, copy: float) -> Row:
    """What the time means for a token, and for the memory."""
    found: Row = {}
    if work.tokens:
        found["ns_per_token"] = 1e6 * ms / work.tokens
    if work.moved:
        found["gb_per_second"] = work.moved / ms / 1e6
        found["of_copy"] = found["gb_per_second"] / copy
    return found


def peak(call: Call, device: str) -> float | None:
    """GB that a call holds at most beside what is there, on a GPU."""
    if device == "cpu":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    elapsed(call, device)
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def checked(what: str, difference: float, most: float) -> float:
    """Refuse to time a form whose result differs."""
    if not difference <= most:
        raise SystemExit(f"not timed: {what} differ by {difference:.1e}, and may by {most:.0e}")
    return difference


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
