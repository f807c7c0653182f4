"""fairseq-generate: where our report begins and ends, and the task it works with."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable


def wrap_generation() -> None:
    """Any fairseq: it has no hook around a generation, so the function that does it is replaced, once.

    The console script has imported the module long before ours; started as a file or with ``-m`` it is ``__main__``.
    """
    for module in (sys.modules.get("__main__"), importlib.import_module("fairseq_cli.generate")):
        if is_generate(module) and not hasattr(module._main, "reports"):  # type: ignore[union-attr]
            module._main = _reporting(module._main)  # type: ignore[union-attr]


def is_generate(module: Any) -> bool:
    """Whether a module is fairseq's generate, under whichever name it runs."""
    file = Path(getattr(module, "__file__", None) or "")
    return file.parts[-2:] == ("fairseq_cli", "generate.py") and hasattr(module, "_main")


def _reporting(main: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(main)
    def _main(cfg: Any, output_file: Any) -> Any:
        from fairseq_diffusion.reporting.run import run  # only now: it stands on this room

        return run(main, cfg, output_file)

    _main.reports = True  # type: ignore[attr-defined]
    return _main


@contextlib.contextmanager
def watched_tasks(see: Callable[[Any], None]) -> Iterator[None]:
    """Within it, `see` gets each task that fairseq sets up, before anything is asked of the task."""
    from fairseq import tasks

    setup = tasks.setup_task

    @functools.wraps(setup)
    def setup_task(*args: Any, **kwargs: Any) -> Any:
        see(task := setup(*args, **kwargs))
        return task

    tasks.setup_task = setup_task
    try:
        yield
    finally:
        tasks.setup_task = setup
