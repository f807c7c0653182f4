"""fairseq's commands as processes of their own that need not import torch and fairseq, which takes longer than a test.

One process has imported them and forks at each command; the fork is what the command would be after its imports.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Callable
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
PYTHONPATH = f"{ROOT}:{ROOT / 'tests/stands_in'}"
ENVIRONMENT = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TOOLS = ("train", "generate", "interactive", "validate")


@cache
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"fairseq_cli.{tool}" for tool in TOOLS])
    with patch.dict(os.environ, ENVIRONMENT, clear=True):
        multiprocessing.forkserver.ensure_running()
    return context


def run(tool: str, args: list[str], files: list[str]) -> None:
    """Be fairseq's command, or ours: with its arguments, and with files as its standard input, output and error."""
    for number, (name, mode) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
        os.dup2(os.open(name, mode), number)
    sys.stdin = os.fdopen(0)
    sys.argv = [tool, *args]
    try:
        if tool not in TOOLS:
            sys.exit(import_module("fairseq_diffusion.cli.main").main([tool, *args]))
        import_module(f"fairseq_cli.{tool}").cli_main()
    except Exception:  # as a Python that has just started shows it
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


class Command:
    """A command that has begun; in a process of its own, as a user starts it."""

    def __init__(self, tool: str, *args: Any, stdin: str = "", target: Callable[..., None] = run) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [str(Path(self._folder.name) / name) for name in ("stdin", "stdout", "stderr")]
        self._args = [tool, *map(str, args)]
        self.output = Path(self._files[1])  # while it runs
        for name, text in zip(self._files, (stdin, "", "")):
            Path(name).write_text(text)
        self.process: BaseProcess = server().Process(target=target, args=(tool, self._args[1:], self._files))
        self.process.start()

    @property
    def number(self) -> int:
        """Of its process."""
        assert self.process.pid is not None
        return self.process.pid

    def done(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Its output and exit status, once it has ended."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"{self._args} still runs after {timeout} seconds"
        _, output, errors = (Path(name).read_text() for name in self._files)
        self._folder.cleanup()
        return subprocess.CompletedProcess(self._args, self.process.exitcode, output, errors)
