"""All benchmarks in turn (`make bench`): their tables as they come, and their JSON in a new folder runs/bench-N.

    .venv/bin/python benchmarks/run.py                          (CPU: two to five minutes each)
    .venv/bin/python benchmarks/run.py --device cuda decode     (GPU, one of them)

Files are called BENCHMARK.DEVICE.json after what they were measured on; those that the documents quote are in
benchmarks/results.  With --results, what is there already is replaced only with --force.  If one fails, the others
still run.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from fairseq_diffusion.reporting.facts import processor

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("train", "decode", "post", "kernels", "scale", "steps")


def main() -> int:
    options = arguments()
    folder = options.results or new_folder(HERE.parent / "runs")
    files = {name: folder / f"{name}.{device_slug(options.device)}.json" for name in options.benchmarks}
    if there := [str(path) for path in files.values() if path.exists() and not options.force]:
        print(f"run: {there[0]} exists already; pass --force to replace it, or --results FOLDER", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    return max(run(name, path, options) for name, path in files.items())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", default=BENCHMARKS, help=f"which: {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cpu or cuda (cpu)")
    parser.add_argument("--results", type=Path, help="folder to write to (a new one, runs/bench-N)")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: do they run? times mean nothing")
    parser.add_argument("--force", action="store_true", help="replace results that are there")
    options = parser.parse_args()
    if unknown := set(options.benchmarks) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no GPU here; drop it to measure the CPU")
    return options


def new_folder(parent: Path) -> Path:
    """The first free bench-N: earlier results are kept."""
    return next(folder for number in itertools.count(1) if not (folder := parent / f"bench-{number}").exists())


def run(name: str, path: Path, options: argparse.Namespace) -> int:
    """One benchmark, in a process of its own."""
    flags = ["--device", options.device, "--output", str(path)]
    flags += [flag for flag in ("--quick", "--force") if getattr(options, flag[2:])]
    print(f"== {name}", flush=True)
    begun = time.perf_counter()
    failed = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *flags], check=False).returncode
    how = f"failed ({failed})" if failed else f"written to {path}"
    print(f"== {name}: {how}, {time.perf_counter() - begun:.0f} s\n", flush=True)
    return int(bool(failed))


def device_slug(device: str) -> str:
    """What it runs on, as part of a file's name."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu {processor()}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    raise SystemExit(main())
