"""usage: training_time.py FOLDER [--max-update U]

How long a training whose checkpoints are in FOLDER may go on, as the value of fairseq-train's --stop-time-hours, which
counts from the training's first start: not past the time in DEADLINE (seconds since 1970, in the environment). fairseq
then validates and saves, so it is stopped somewhat earlier, see SPARED.

With --max-update nothing is printed: the exit status is 0 if the training has done U updates, and 75 if it has more to
do.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from deadline import MORE_TO_DO, seconds_left

from fairseq_diffusion.cli.average import load_checkpoint, updates

SPARED = 0.1  # of the time that is left, for the validation and the checkpoint at the end
LEAST = 1e-6  # hours: 0 would be no limit for fairseq


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-update", type=int)
    options = parser.parse_args()
    done, hours = progress(options.folder / "checkpoint_last.pt")
    if options.max_update is not None:
        return 0 if done >= options.max_update else MORE_TO_DO
    left = seconds_left()
    most = math.inf if left is None else hours + (1 - SPARED) * left / 3600
    print(f"{max(LEAST, most):.6f}")
    return 0


def progress(checkpoint: Path) -> tuple[int, float]:
    """Updates done, and hours taken."""
    if not checkpoint.exists():
        return 0, 0.0
    state = load_checkpoint(checkpoint)
    return updates(state), state["extra_state"].get("previous_training_time", 0.0) / 3600


if __name__ == "__main__":
    raise SystemExit(main())
