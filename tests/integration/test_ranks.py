"""Two ranks give the gradients of one rank with the doubled batch, and a training can change their number."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command
from support import TINY, TINY_WORDS, call, read, training

from fairseq_diffusion.cli.main import main as run

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
    ranks = [Command("train", *args, *group.split(), rank) for rank in range(2)]
    ended = [rank.done() for rank in ranks]
    assert [rank.returncode for rank in ended] == [0, 0], "\n".join(rank.stdout + rank.stderr for rank in ended)


@pytest.mark.parametrize(
    "flags",
    [
        "--loss-normaliser sentences",
        "--loss-normaliser tokens --self-conditioning random",
        "--arch mdlm_toy --loss-normaliser tokens --time-sampler uniform",
    ],
)
def test_two_ranks_equal_one_with_the_doubled_batch(eight: Path, tmp_path: Path, flags: str):
    """Eight sentences of different lengths: 4 + 4 on two ranks, 8 on one, and 4 twice before a step."""

    def arguments(name: str, batch: int, more: str = "") -> list[Any]:
        size = TINY_WORDS if "mdlm" in flags else TINY
        return training(eight, tmp_path / name, f"{flags} {STEP} {more}", batch=batch, size=size)

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
    for name in ("two", "one"):  # and what two ranks began, one goes on with
        call("train", *arguments(name, 8, "--max-update 2 --seed 5"))
    two, again = (read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("two", "one"))
    for key in one:
        torch.testing.assert_close(two[key], again[key], rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(again[key], one[key]) for key in moved)


def test_two_ranks_go_on_with_what_one_began(eight: Path, tmp_path: Path):
    """Two epochs of one update each, all eight sentences in it: the weights, their moving average, and the mean of both
    epochs are those of one rank throughout."""
    keep = STEP.replace(" --no-epoch-checkpoints", "").replace("--max-update 1", "--store-ema --ema-decay 0.5")

    def arguments(updates: int, name: str = "changed", batch: int = 8) -> list[Any]:
        """Seeds differ, so that the second update shows whether the first one was its own training's."""
        return training(eight, tmp_path / name, f"{keep} --max-update {updates} --seed {updates}", batch=batch)

    def averaged(name: str) -> Any:
        output = tmp_path / f"{name}.pt"
        assert run(["average", "--inputs", str(tmp_path / name), "--last", "2", "--output", str(output)]) == 0
        return read(output)["model"]

    for name in ("changed", "alone"):
        call("train", *arguments(1, name))
    two_ranks(*arguments(2, batch=4))
    call("train", *arguments(2, "alone"))
    changed, alone = (read(tmp_path / name / "checkpoint_last.pt") for name in ("changed", "alone"))
    assert changed["optimizer_history"][-1]["num_updates"] == 2
    for one, other in (
        (changed["model"], alone["model"]),
        (changed["extra_state"]["ema"], alone["extra_state"]["ema"]),
        (averaged("changed"), averaged("alone")),
    ):
        for key in other:
            torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-5)


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


def test_two_ranks_start_from_an_ar_model(data: Path, teacher: Path, tmp_path: Path):
    """The first rank alone reads it; a step of both is that of one rank with the doubled batch, and they agree."""
    size = "--hidden 16 --inner 16 --heads 2 --encoder-layers 1 --decoder-layers 1".split()
    like = "--activation relu --scale-embeddings --no-encoder-norm --no-entry-norm --time-sampler uniform"
    flags = f"{like} {STEP} --finetune-from-model {teacher} --train-subset valid --loss-normaliser tokens"

    def arguments(name: str, batch: int) -> list[Any]:
        return training(data, tmp_path / name, f"{flags} --seed {batch}", "mdlm_toy", batch, size)

    two_ranks(*arguments("two", 5))
    call("train", *arguments("one", 10), "--seed", "5")
    two, one = (read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("two", "one"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)


SLURM = {"SLURM_STEP_NODELIST": "first,second", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
TORCHRUN = {"MASTER_ADDR": "first", "MASTER_PORT": "29500", "WORLD_SIZE": "16", "RANK": "9"}
LAUNCHES = {  # environment, GPUs seen, --distributed-world-size (None: fairseq's default); first rank and world size
    "torchrun": (TORCHRUN, 8, None, 9, 16),
    "slurm, a task a machine": ({**SLURM, "SLURM_NTASKS": "2"}, 8, None, 8, 16),
    "slurm, a task a GPU": ({**SLURM, "SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}, 8, 16, 9, 16),
    "one GPU, nothing said": (TORCHRUN, 1, None, 0, 1),  # fairseq-fixed; 0.12.2 reads the environment here too
    "one GPU, the number said": (TORCHRUN, 1, 16, 9, 16),
}


@pytest.mark.parametrize("launch", LAUNCHES)
def test_what_fairseq_makes_of_a_cluster_is_what_the_document_says(
    launch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fairseq.dataclass.configs import DistributedTrainingConfig
    from fairseq.distributed.utils import infer_init_method
    from omegaconf import OmegaConf

    environment, gpus, said, rank, size = LAUNCHES[launch]
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'first\\nsecond\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    cfg = OmegaConf.structured(DistributedTrainingConfig(tpu=False))
    cfg.distributed_world_size, cfg.distributed_port = said or gpus, 29500
    infer_init_method(cfg)
    assert (cfg.distributed_rank, cfg.distributed_world_size) == (rank, size)
    where = {"torchrun": "env://", "one GPU, nothing said": None, "one GPU, the number said": "env://"}
    assert cfg.distributed_init_method == where.get(launch, "tcp://first:29500")
