"""The time in DEADLINE, seconds since 1970, at which a call of a recipe is to end."""

from __future__ import annotations

import os
import time

MORE_TO_DO = 75  # exit status: EX_TEMPFAIL, "try again"


def seconds_left() -> float | None:
    """Until the deadline, 0 behind it, or None if there is none."""
    return max(0.0, float(os.environ["DEADLINE"]) - time.time()) if "DEADLINE" in os.environ else None
