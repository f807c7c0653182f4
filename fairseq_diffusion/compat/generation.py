"""fairseq-generate, for which fairseq has no hook: a function around it, and the tasks that it sets up."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion.compat.wrapping import wrap_once

Main = Callable[[Any, Any], Any]  # of a configuration and the file to print to


def around_generation(run: Callable[[Main, Any, Any], Any], open_text: Callable[..., Any]) -> None:
    """Any fairseq: `run(main, cfg, output_file)` is called in place of the function that generates, `main`, and
    `open_text` in place of `open`, by which fairseq empties the file of --results-path before it looks at anything.

    The console script has imported the module long before ours; started as a file or with ``-m`` it is ``__main__``.
    """
    for module in (sys.modules.get("__main__"), importlib.import_module("fairseq_cli.generate")):
        if is_generate(module):
            wrap_once(module, "_main", run)
            module.open = open_text  # type: ignore[union-attr]


def is_generate(module: Any) -> bool:
    """Whether a module is fairseq's generate, under whichever name it runs."""
    file = Path(getattr(module, "__file__", None) or "")
    return file.parts[-2:] == ("fairseq_cli", "generate.py") and hasattr(module, "_main")


@contextlib.contextmanager
def watched_tasks(see: Callable[[Any], None]) -> Iterator[None]:
    """Within it, `see` is called with each task that fairseq sets up, before anything else is."""
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
