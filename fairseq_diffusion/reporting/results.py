"""The files of a run in a folder of --results-path: one run of a subset at a time, complete or not there.

Until a run is over, its files are called NAME.partial.  Those of an earlier run are then moved to replaced/.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from fairseq_diffusion.files.generated import is_generated, lines_of
from fairseq_diffusion.files.locks import Lock
from fairseq_diffusion.reporting.history import history_path, is_history
from fairseq_diffusion.reporting.output import check_ours, is_report

REPLACED = "replaced"


def partial(path: Path) -> Path:
    """What a file is called until it is complete."""
    return path.with_name(f"{path.name}.partial")


@contextmanager
def open_text(path: str, *how: Any, **named: Any) -> Iterator[TextIO]:
    """In place of `open`, by which fairseq empties the text of an earlier run: another file, under a lock.

    What a run that failed has translated stays there.
    """
    text = Path(path)
    with Lock(text.with_name(f".{text.name}.lock"), text, "pass another --results-path"):
        file = partial(text).open(*how, **named)
        try:
            yield file
        except BaseException:
            with contextlib.suppress(OSError):  # closing a file on a full disk would hide the error
                file.close()
            keep_if_any(partial(text))
            raise
        file.close()


def keep_if_any(text: Path) -> None:
    """Keep the text of a run that failed if it has a translation."""
    if not text.exists():
        return
    if any(map(is_generated, lines_of(text, errors="replace"))):
        print(f"fairseq-diffusion: what was translated before this error is in {text}", file=sys.stderr)
    else:
        text.unlink()


class Results:
    """Where the text, the report and the history of a run are to be."""

    def __init__(self, text: Path, report: Path):
        """Refuses to take the place of a report or a history that is none."""
        self.text, self.report, self.history = text, report, history_path(report)
        for path, is_ours in ((self.report, is_report), (self.history, is_history)):
            check_ours(path, is_ours)
            partial(path).unlink(missing_ok=True)  # of a run that was killed

    def put_in_place(self) -> None:
        """The text last: where it is, all is."""
        files = (self.report, self.history, self.text)
        self._move_away([path for path in files if path.exists()])
        for path in files:
            if partial(path).exists():
                partial(path).replace(path)

    def _move_away(self, earlier: list[Path]) -> None:
        if not earlier:
            return
        folder = new_folder(self.text.parent / REPLACED, self.text.stem)
        for path in earlier:
            path.rename(folder / path.name)
        print(f"fairseq-diffusion: the earlier {self.text} and its report are in {folder}", file=sys.stderr)


def new_folder(parent: Path, name: str) -> Path:
    """NAME-1, or the first number that is free."""
    parent.mkdir(exist_ok=True)
    for number in count(1):
        with contextlib.suppress(FileExistsError):
            (folder := parent / f"{name}-{number}").mkdir()
            return folder
    raise AssertionError
