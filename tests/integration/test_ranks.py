"""Two ranks give the gradients of one rank with the doubled batch, a training can change their number, and a rank that
is lost does not leave the other waiting."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from commands import Command, server
from commands import run as run_command
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.module_proxy_wrapper import ModuleProxyWrapper
from runs import MODEL, autoregressive
from support import TINY, TINY_BLOCKS, TINY_WORDS, call, different, read, training

import fairseq_diffusion
from fairseq_diffusion.cli.main import main as run

STEP = "--optimizer sgd --lr 1 --clip-norm 0 --dropout 0 --max-update 1 --no-epoch-checkpoints --disable-validation"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def of_two(*args: Any) -> list[list[Any]]:
    """The arguments of each of two ranks that talk by gloo; without GPUs fairseq must be told all of it, and its
    default backend names a GPU even then."""
    group = f"--distributed-init-method tcp://localhost:{free_port()} --distributed-world-size 2"
    group += " --distributed-no-spawn --distributed-backend gloo --ddp-backend legacy_ddp --distributed-rank"
    return [[*args, *group.split(), rank] for rank in range(2)]


def two_ranks(*args: Any) -> None:
    ranks = [Command("train", *own) for own in of_two(*args)]
    ended = [rank.done() for rank in ranks]
    assert [rank.returncode for rank in ended] == [0, 0], "\n".join(rank.stdout + rank.stderr for rank in ended)


@pytest.mark.parametrize(
    "flags",
    [
        "--loss-normaliser sentences",
        "--loss-normaliser tokens --self-conditioning random",
        "--arch mdlm_toy --loss-normaliser tokens --time-sampler uniform",
        "--arch seqdiffuseq_toy --canvas-positions 12 --loss-normaliser tokens --self-conditioning none",
        "--arch sed_toy --canvas-positions 12 --canvas-blanks 0.5 --loss-normaliser tokens",
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


@pytest.mark.parametrize("kind", ["teacher", "mdlm_toy"])
def test_two_ranks_contrast_words_as_one_with_two_batches(eight: Path, tmp_path: Path, kind: str):
    """Each rank's words among themselves, as --update-freq does; a second view would draw other dropout."""

    def arguments(name: str, more: str = "") -> list[Any]:
        flags = f"{STEP} --frequency-contrast 2 --contrast-dropout 0 {more}"
        if kind == "teacher":
            return autoregressive(eight, tmp_path / name, f"--batch-size 4 {flags}")
        return training(eight, tmp_path / name, f"{flags} --time-sampler uniform", kind, 4, TINY_WORDS)

    two_ranks(*arguments("two"))
    call("train", *arguments("one", "--update-freq 2"))
    call("train", *arguments("without", "--update-freq 2 --frequency-contrast 1e-9"))
    two, one, without = (read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("two", "one", "without"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
    assert any((one[key] - without[key]).abs().max() > 1e-3 for key in one)


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


WRAPPED = {  # what one update computes and another does not, by chance or by the sentences
    "dinoiser_toy": "--self-conditioning random",
    "difformer_toy": "",
    "cdcd_toy": "--canvas-positions 12",
    "diffuseq_v2_toy": "--canvas-positions 12",
    "sed_toy": "--canvas-positions 12",
    "genie_toy": "--canvas-positions 12",
    "plaid_toy": "--canvas-positions 12",
    "mdlm_toy": "--self-conditioning random --source-drop 0.3 --frequency-contrast 0.1",
    "lddm_seq_toy": "--latents-start 2 --latents-contrast 0.1",
    "lddm_fuji_toy": "--self-conditioning random --latents-start 2",
    "sundae_toy": "",
    "latent_nat_toy": "--latents-start 2",
    "diffglat_toy_ctc": "",
    "cmlm_toy": "",
    "transformer": "--criterion e_arm --energy-start 2",
}


def updates_of(arch: str, data: Path, folder: Path, rank: int) -> None:
    """Four updates under torch's DistributedDataParallel, --ddp-backend of most users, which fails where a parameter
    has no gradient. fairseq wraps a model in it only on a GPU. The second rank has fewer sentences, and then none."""
    size = MODEL.split()[2:] if arch == "transformer" else TINY_BLOCKS if "diffglat" in arch else TINY_WORDS
    args = options.parse_args_and_arch(
        options.get_training_parser(), list(map(str, training(data, folder, WRAPPED[arch], arch, size=size)))
    )
    cfg = convert_namespace_to_omegaconf(args)
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    torch.manual_seed(1)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    wrapped = ModuleProxyWrapper(torch.nn.parallel.DistributedDataParallel(model.train()))
    batches = task.get_batch_iterator(task.dataset("train"), max_sentences=6 - 4 * rank).next_epoch_itr(shuffle=False)
    for update, batch in zip(range(4), batches):
        for part in (model, criterion):
            getattr(part, "set_num_updates", lambda number: None)(update)
        model.zero_grad()
        loss, size, _ = criterion(wrapped, batch)
        (loss / size * (rank == 0 or update < 3)).backward()  # fairseq's dummy batch has weight 0
        with torch.no_grad():
            for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
                parameter -= 0.1 * parameter.grad
    torch.save(model.state_dict(), folder / f"{arch}-{rank}.pt")


def wrapped_rank(rank: int, port: int, data: Path, folder: Path) -> None:
    fairseq_diffusion.load()
    torch.set_num_threads(1)
    where = {"init_method": f"tcp://localhost:{port}", "world_size": 2, "rank": rank}
    torch.distributed.init_process_group("gloo", **where)
    for arch in WRAPPED:
        updates_of(arch, data, folder, rank)


def test_every_parameter_has_a_gradient_on_both_ranks(data: Path, tmp_path: Path):
    port = free_port()
    ranks = [server().Process(target=wrapped_rank, args=(rank, port, data, tmp_path)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    for arch in WRAPPED:
        first, second = (read(tmp_path / f"{arch}-{rank}.pt") for rank in (0, 1))
        assert not different(first, second)


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


def impatient(*args: Any) -> None:
    """A command whose ranks wait for each other for seconds where the usual ones do for minutes."""
    fairseq_diffusion.load()
    with patch.multiple("fairseq_diffusion.compat.ranks", LONGEST_WAIT=4, HINT_EVERY=1):
        run_command(*args)


def endless(data: Path, folder: Path, flags: str = "") -> list[Any]:
    log = "--log-format json --log-interval 1 --disable-validation --no-save --log-file"
    return training(data, folder / "save", f"{log} {folder / 'log'} {flags}")


def started(ranks: list[Command], log: Path) -> None:
    """Wait for the second update."""
    while not log.exists() or log.read_text().count("num_updates") < 2:
        assert all(rank.process.is_alive() for rank in ranks)
        time.sleep(0.05)


@pytest.mark.parametrize("lost, found", [(signal.SIGSTOP, "Timed out waiting"), (signal.SIGKILL, "peer")])
def test_a_rank_that_is_lost_ends_the_other(data: Path, tmp_path: Path, lost: signal.Signals, found: str):
    ranks = [Command("train", *own, target=impatient) for own in of_two(*endless(data, tmp_path))]
    started(ranks, tmp_path / "log")
    os.kill(ranks[1].process.pid, lost)
    ended = ranks[0].done(60)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "error: another rank has ended or does not answer (" in ended.stderr and found in ended.stderr
    if lost == signal.SIGSTOP:
        os.kill(ranks[1].process.pid, signal.SIGCONT)
        assert "another rank has ended or does not answer (" in ranks[1].done(60).stderr


def test_heartbeat_timeout_ends_a_rank_that_waits(data: Path, tmp_path: Path):
    """By fairseq's flag, which torch's exchange between ranks used to keep from its work."""
    ranks = [Command("train", *own) for own in of_two(*endless(data, tmp_path, "--heartbeat-timeout 4"))]
    started(ranks, tmp_path / "log")
    os.kill(ranks[1].process.pid, signal.SIGSTOP)
    ended = ranks[0].done(60)
    assert ended.returncode == -signal.SIGTERM and "not making progress in 4 seconds" in ended.stdout + ended.stderr
    os.kill(ranks[1].process.pid, signal.SIGKILL)


def test_a_rank_that_never_comes_is_missed_and_then_given_up(data: Path, tmp_path: Path):
    ended = Command("train", *of_two(*endless(data, tmp_path))[0], target=impatient).done(60)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "rank 0 has waited for 2 s for all 2 ranks to meet at tcp://localhost:" in ended.stdout + ended.stderr
    assert "another rank has ended or does not answer (Timed out after" in ended.stderr


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
