"""A disk that is full at any byte: a sentence, and every file is whole or not there."""

from __future__ import annotations

import functools
import os
import random
import resource
import shutil
import signal
from pathlib import Path
from typing import Any, Callable

import pytest
from commands import Command, run
from outputs import OURS, QUICK, Way, generate, made, train
from reliability_fixtures import with_quick
from support import different

import fairseq_diffusion


def with_room(size: int, terminal: str, tool: str, args: list[str], files: list[str]) -> None:
    """Be a command whose files can have this many bytes each, but for what it says."""
    fairseq_diffusion.load()  # which this module has imported, so that --user-dir would not
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    run(tool, args, [files[0], terminal, terminal])


def said(words: list[Any], room: int, terminal: Path) -> tuple[int, str]:
    """The exit status of a command that has so much room, and what it says."""
    os.mkfifo(terminal)
    command = Command(*words, target=functools.partial(with_room, room, str(terminal)))
    text = terminal.read_text()  # until it ends
    terminal.unlink()
    return command.done().returncode, text


@pytest.mark.parametrize("way", with_quick([train, generate, *OURS], QUICK))
def test_a_disk_that_is_full_at_any_byte(
    way: Way, soak: bool, stored_results: Path, stored_teacher: Path, tmp_path: Path, count: Callable[..., None]
):
    (out := tmp_path / "out").mkdir()
    assert Command(*way(out, stored_results, stored_teacher)).done().returncode == 0
    whole, rng = made(out), random.Random(1)
    longest = max(file.stat().st_size for file in out.rglob("*") if file.is_file())
    for number in range(30 if soak else 2):
        shutil.rmtree(out)
        out.mkdir()
        words = way(out, stored_results, stored_teacher)
        room = rng.randrange(longest) if number else 0
        status, text = said(words, room, tmp_path / "terminal")
        if status:
            count("full disks")
            last = text.strip().splitlines()[-1]
            assert last.startswith("fairseq-diffusion: error: "), f"with room for {room} bytes: {last}"
        left = {name: found for name, found in made(out).items() if name in whole}
        assert different(left, {name: whole[name] for name in left}) == []
        assert status or different(made(out), whole) == []
