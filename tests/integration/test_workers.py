"""Worker processes that load batches, by fairseq's default number: they end with their epoch, and with the training."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import ENVIRONMENT
from support import DEFAULT_WORKERS, call, command, training

TIMEOUT = 30  # seconds


@pytest.mark.parametrize("flags", ["", "--max-valid-steps 1 --batch-size-valid 1 --data-buffer-size 1"])
def test_no_worker_outlives_a_training(data: Path, tmp_path: Path, flags: str):
    """Three epochs and three validations, of all batches or of 2 of 10."""
    call("train", *training(data, tmp_path, f"{DEFAULT_WORKERS} --max-epoch 3 --no-save {flags}"))
    for worker in multiprocessing.active_children():
        worker.join(10)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    "flags, line, seconds",
    [
        ("--batch-size 1", "train_inner | epoch 002:      3", 0),  # batches wait in the buffer
        ("", "valid | epoch 004", 1),  # a second later, iterators that nobody refers to are being collected
    ],
)
def test_ctrl_c_ends_a_training_and_its_workers(data: Path, tmp_path: Path, flags: str, line: str, seconds: int):
    """Sent when the log has the line.  A worker that went on would keep the pipe open, and `communicate` would wait."""
    flags += f" {DEFAULT_WORKERS} --max-epoch 100000 --log-interval 1 --no-epoch-checkpoints"
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # a suite that runs in the background has inherited that SIGINT is ignored
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    train = command("train", *training(data, tmp_path, flags))
    with subprocess.Popen(train, env=ENVIRONMENT, **pipe, **heed) as process:
        assert any(line in logged for logged in process.stdout)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
