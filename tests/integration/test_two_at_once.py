"""Two commands that would write to one place: the second is refused, and nothing of the first is lost or mixed."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from commands import Command
from holding import held
from support import call, decoding, generate, process, read, training

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import locks

HOST = socket.gethostname()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.2)


def wait_for(there: Path, command: Command) -> None:
    until = time.monotonic() + 120
    while not there.exists():
        assert time.monotonic() < until, command.done(1).stderr
        time.sleep(0.05)


def test_a_second_training_is_refused_until_the_first_is_killed(data: Path, tmp_path: Path):
    """And a training that ends by itself leaves no lock."""
    often = "--save-interval-updates 1 --keep-interval-updates 1 --disable-validation"
    first = Command("train", *training(data, tmp_path, f"{often} --max-update 100000"))
    wait_for(tmp_path / "checkpoint_last.pt", first)
    second = process("train", *training(data, tmp_path, "--max-update 1"))
    assert second.returncode == 1 and "Traceback" not in second.stderr
    last = second.stderr.strip().splitlines()[-1]
    assert f"{tmp_path} is being written to by process {first.number} on {HOST}" in last
    assert last.endswith("wait until that has ended, end it, or pass another --save-dir")
    os.kill(first.number, signal.SIGKILL)
    assert first.done().returncode == -signal.SIGKILL and (tmp_path / ".training.lock").exists()
    done = read(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]
    third = process("train", *training(data, tmp_path, f"--max-update {done + 1} --disable-validation"))
    assert third.returncode == 0, third.stderr
    assert not (tmp_path / ".training.lock").exists()


def test_a_refused_training_writes_nothing_and_one_that_saves_nothing_is_not_refused(
    data: Path, tmp_path: Path, impatient: None
):
    with held(tmp_path / ".training.lock"):
        with pytest.raises(UserError, match="pass another --save-dir"):
            call("train", *training(data, tmp_path, "--max-update 1"))
        call("train", *training(data, tmp_path, "--max-update 1 --no-save"))
        assert [path.name for path in tmp_path.iterdir()] == [".training.lock"]


def test_a_second_generation_into_one_folder_is_refused(data: Path, checkpoint: Path, tmp_path: Path, impatient: None):
    (tmp_path / "generate-test.txt").write_text("earlier")
    with held(tmp_path / ".generate-test.txt.lock") as owner:
        result = process("generate", *decoding(data, checkpoint, f"--results-path {tmp_path}"))
        last = result.stderr.strip().splitlines()[-1]
        assert result.returncode == 1 and f"{tmp_path}/generate-test.txt is being written to by process {owner}" in last
        assert last.endswith("end it, or pass another --results-path")
        generate(data, checkpoint, f"--gen-subset valid --results-path {tmp_path}")  # another subset's
    assert (tmp_path / "generate-test.txt").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} >= {"generate-valid.txt", "generate-valid.json"}
    generate(data, checkpoint, f"--results-path {tmp_path}")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_distillation_shares_its_work_by_shards_and_writes_one_data_bin(
    data: Path, teacher: Path, tmp_path: Path, impatient: None, capsys: pytest.CaptureFixture[str]
):
    distil = ["distill", str(data), "--path", str(teacher), "--output", str(tmp_path / "new")]
    (tmp_path / "new.work").mkdir()
    with held(tmp_path / "new.work/.shard-0-of-1.tsv.lock"):
        assert main([*distil, "--", "--cpu"]) == 2
    assert "shard-0-of-1.tsv is being written to by process" in capsys.readouterr().err
    assert main([*distil, "--shard", "0", "--", "--cpu"]) == 0
    with held(tmp_path / ".new.lock"):
        assert main([*distil, "--", "--cpu"]) == 2
    assert f"{tmp_path}/new is being written to by process" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
