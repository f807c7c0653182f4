"""How far a decoding has come: a line on stderr now and then, where fairseq's progress bar is not seen."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

EVERY = 30.0  # seconds before the first line, and between two


class Progress:
    """Counts the sentences that are done; shards that are decoded side by side may share it.

    The time that is left is estimated by tokens, because fairseq decodes short sentences first.
    """

    def __init__(self, done: str, sizes: Mapping[int, int], clock: Callable[[], float] = time.monotonic):
        """`done` is the verb, as in "translated"; `sizes` has the tokens of each sentence by its number."""
        self.done, self.sizes, self.clock = done, sizes, clock
        self.all_tokens = sum(sizes.values())
        self.sentences = self.tokens = 0
        self.started = self.last = clock()
        self._lock = threading.Lock()

    def add(self, numbers: Iterable[int]) -> None:
        """These sentences are done, too."""
        with self._lock:
            for number in numbers:
                self.sentences += 1
                self.tokens += self.sizes[number]
            now = self.clock()
            if now - self.last >= EVERY and self.sentences < len(self.sizes):
                self.last = now
                print(self.line(now - self.started), file=sys.stderr, flush=True)

    def watched(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """fairseq's batches, each of which is done when the next one is asked for."""
        for batch in batches:
            yield batch
            self.add(batch["id"].tolist())

    def line(self, seconds: float) -> str:
        left = seconds * (self.all_tokens - self.tokens) / self.tokens
        speed = self.sentences / seconds
        shown = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return (
            f"{self.done} {self.sentences:,} of {len(self.sizes):,} sentences, {shown} sentences/s, about "
            f"{duration(left)} left"
        )


def duration(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def bar_is_seen(common: Any) -> bool:
    """Whether fairseq shows its progress bar on a terminal, or none because the user wants none."""
    wanted = common.log_format or ("simple" if common.no_progress_bar else "tqdm")
    return wanted == "none" or (wanted == "tqdm" and sys.stderr.isatty())
