"""A lock is held by one process, ends with it, and leaves no file; where there are none, that is said."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from holding import FORK, held

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import locks
from fairseq_diffusion.files.locks import Lock


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.2)


def test_a_second_process_is_refused_with_the_first_ones_number(tmp_path: Path, impatient: None):
    with held(tmp_path / "lock") as owner, pytest.raises(UserError) as refused:
        Lock(tmp_path / "lock", tmp_path, "pass another --save-dir")
    said = str(refused.value)
    assert f"{tmp_path} is being written to by process {owner} on {socket.gethostname()}" in said
    assert "wait until that has ended, end it, or pass another --save-dir" in said


def test_a_killed_process_holds_nothing(tmp_path: Path):
    with held(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").exists()
    with Lock(tmp_path / "lock", tmp_path, ""):
        assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()
    assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_an_error_and_is_not_held_by_forked_processes(tmp_path: Path, impatient: None):
    with pytest.raises(ZeroDivisionError), Lock(tmp_path / "lock", tmp_path, ""):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    ready, end = FORK.Event(), FORK.Event()
    with Lock(tmp_path / "lock", tmp_path, ""):
        child = FORK.Process(target=lambda: (ready.set(), end.wait()))  # as one that loads data
        child.start()
        ready.wait()
    with held(tmp_path / "lock"):
        pass
    end.set()
    child.join()


def count_up(folder: Path, times: int) -> None:
    locks.PATIENCE = 60
    for _ in range(times):
        with Lock(folder / "lock", folder, ""):
            number = int((folder / "number").read_text())
            (folder / "number").write_text(str(number + 1))


def test_no_two_have_it_at_a_time_although_each_removes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "number").write_text("0")
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    counting = [FORK.Process(target=count_up, args=(tmp_path, 50)) for _ in range(3)]
    for each in counting:
        each.start()
    for each in counting:
        each.join()
    assert (tmp_path / "number").read_text() == "150"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_there_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
):
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with caplog.at_level(logging.WARNING), Lock(tmp_path / "lock", tmp_path, ""):
        assert not list(tmp_path.iterdir())
    (record,) = caplog.records
    assert f"{tmp_path} is on a file system without locks ({os.strerror(number)})" in record.message
