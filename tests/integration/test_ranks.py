"""Two ranks give the gradients of one rank with the doubled batch."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ENVIRONMENT, call, command, read, training

STEP = "--optimizer sgd --lr 1 --clip-norm 0 --dropout 0 --max-update 1 --no-epoch-checkpoints --disable-validation"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def two_ranks(*args: Any) -> None:
    """Train in two processes that talk by gloo; without GPUs fairseq must be told all of it, and its default backend
    names a GPU even then."""
    group = f"--distributed-init-method tcp://localhost:{free_port()} --distributed-world-size 2"
    group += " --distributed-no-spawn --distributed-backend gloo --ddp-backend legacy_ddp --distributed-rank"
    commands = [command("train", *args, *group.split(), rank) for rank in range(2)]
    ranks = [
        subprocess.Popen(each, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for each in commands
    ]
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)


@pytest.mark.parametrize("flags", ["--loss-normaliser sentences", "--loss-normaliser tokens --self-conditioning coin"])
def test_two_ranks_equal_one_with_the_doubled_batch(eight: Path, tmp_path: Path, flags: str):
    """Eight sentences of different lengths: 4 + 4 on two ranks, 8 on one, and 4 twice before a step."""

    def arguments(name: str, batch: int, more: str = "") -> list[Any]:
        return training(eight, tmp_path / name, f"{flags} {STEP} {more}", batch=batch)

    two_ranks(*arguments("two", 4))
    call("train", *arguments("one", 8))
    call("train", *arguments("accumulated", 4, "--update-freq 2"))
    call("train", *arguments("start", 8, "--lr 0"))
    two, one, accumulated, start = (
        read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("two", "one", "accumulated", "start")
    )
    for key in one:  # a step of rate 1 is large where the embeddings are small, so relative to what came out
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(accumulated[key], one[key], rtol=1e-4, atol=1e-6)
    moved = {key for key in one if (one[key] - start[key]).abs().max() > 1e-3}
    assert len(moved) > len(one) / 2


def test_two_ranks_validate_as_one(data: Path, learned: Path, tmp_path: Path):
    """Loss and BLEU of ten sentences; in batches of four, the second rank has one batch less."""
    start = f"--finetune-from-model {learned / 'checkpoint_last.pt'} --lr 0 --max-update 1 --no-epoch-checkpoints"
    bleu = "--eval-bleu --eval-bleu-remove-bpe --best-checkpoint-metric bleu --maximize-best-checkpoint-metric"
    found = {}
    for name, train in (("two", two_ranks), ("one", lambda *args: call("train", *args))):
        log = tmp_path / f"{name}.log"
        flags = f"{start} {bleu} --batch-size-valid 4 --log-format json --log-file {log}"
        train(*training(data, tmp_path / name, flags))
        logged = re.findall(r'"(valid_(?:loss|bleu|mse|mse_noise_\d0|length_accuracy))": "([\d.]+)"', log.read_text())
        found[name] = {key: float(value) for key, value in logged}
    assert found["one"]["valid_bleu"] > 0 and len(found["one"]) > 5
    assert found["two"] == pytest.approx(found["one"], abs=2e-3)
