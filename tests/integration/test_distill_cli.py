"""Distillation with an autoregressive teacher and with fairseq's own decoding, binarisation and training around it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT
from conftest import binarise
from runs import train_teacher
from support import USER_DIR, call, decoding, lines, training

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.distillation import shards

FLAGS = ["--max-ratio", "1000", "--", "--cpu", "--batch-size", "8", "--num-workers", "0"]


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has learnt enough to say different things."""
    return train_teacher(data, tmp_path_factory.mktemp("teacher"), "--max-update 120")


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """fairseq-generate is called where it would be started, which saves its start."""

    def process_lines(command: list[str], extra: dict[str, str], log: Any) -> Iterator[str]:
        logging.getLogger().addHandler(handler := logging.StreamHandler(log))
        try:
            yield from call("generate", *command[3:]).splitlines(keepends=True)
        finally:
            logging.getLogger().removeHandler(handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "process_lines", process_lines)
        yield


def words(data: Path, teacher: Path, new: Path, *more: Any) -> list[str]:
    return [str(word) for word in ("distill", data, "--path", teacher, "--output", new, *more, *FLAGS)]


def content(folder: Path) -> dict[str, bytes]:
    """Of every file but the record, whose plan names the number of shards."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "distilled.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def counts(new: Path) -> dict[str, Any]:
    return json.loads((new / "distilled.json").read_text())["counts"]


@pytest.fixture(scope="module")
def whole(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Distilled without shards, and nothing happens."""
    assert main(words(data, teacher, new := tmp_path_factory.mktemp("whole") / "new")) == 0
    return new


def test_targets_are_what_fairseq_generate_prints(data: Path, teacher: Path, whole: Path):
    printed = call("generate", *decoding(data, teacher, "--gen-subset train --beam 5", steps=""))
    best = {int(i): found[0][1] for i, found in lines(printed, "H").items()}
    text = (whole / "text" / "train.b").read_text()
    assert text.splitlines() == [best[i] for i in sorted(best)]
    assert len(set(text.splitlines())) > 10 and counts(whole)["kept"] == 40


def test_killed_between_shards_and_resumed(data: Path, teacher: Path, whole: Path, tmp_path: Path):
    """The killed one is a process, and starts others, as users have them."""
    command = words(data, teacher, tmp_path / "new", "--shards", 3)
    start = [sys.executable, "-m", "fairseq_diffusion.cli.main", *command]
    killed = subprocess.Popen(start, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first, second = (tmp_path / "new.work" / name for name in ("shard-0-of-3.tsv", "shard-1-of-3.log"))
    while not second.exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = first.stat().st_mtime_ns
    assert [file.name for file in tmp_path.iterdir()] == ["new.work"]
    assert main(command) == 0
    assert content(tmp_path / "new") == content(whole) and first.stat().st_mtime_ns == before
    assert counts(tmp_path / "new") == counts(whole)


def test_a_distilled_data_bin_trains_and_is_validated_on_real_sentences(data: Path, whole: Path, tmp_path: Path):
    log = tmp_path / "log"
    one_update = f"--max-update 1 --log-format json --log-file {log} --no-epoch-checkpoints"
    call("train", *training(whole, tmp_path / "real", one_update))
    assert (tmp_path / "real" / "checkpoint_last.pt").exists() and '"valid_loss"' in log.read_text()
    assert (whole / "valid.a-b.b.bin").read_bytes() == (data / "valid.a-b.b.bin").read_bytes()


def test_a_teacher_with_an_energy_distils_as_any(data: Path, tmp_path: Path):
    energetic = train_teacher(data, tmp_path, f"{' '.join(USER_DIR)} --criterion e_arm")
    assert main(words(data, energetic, tmp_path / "new")) == 0 and counts(tmp_path / "new")["kept"] > 0


def test_long_sentences_are_skipped_as_the_teacher_skips_them(
    data: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    short = train_teacher(data, tmp_path / "teacher", "--max-source-positions 9 --skip-invalid-size-inputs-valid-test")
    assert main(words(data, short, tmp_path / "new", "--shards", 2)) == 0
    sources = (corpus / "train.a").read_text().splitlines()
    fit = [source for source in sources if len(source.split()) + 1 <= 9]
    found = counts(tmp_path / "new")
    assert found["skipped"] == len(sources) - len(fit) > 0
    assert found["kept"] + found["empty"] + found["wild_ratio"] == len(fit)
    assert f"{found['skipped']:>12}  skipped: longer than the teacher takes" in capsys.readouterr().out


def test_a_joined_dictionary_stays_joined_and_a_diffusion_model_can_teach(corpus: Path, tmp_path: Path):
    joined = binarise(corpus, tmp_path / "bin", "--joined-dictionary")
    arguments = training(joined, tmp_path / "model", "--max-update 1 --disable-validation --no-epoch-checkpoints")
    call("train", *arguments, "--source-lang", "b", "--target-lang", "a")
    assert main(words(joined, tmp_path / "model" / "checkpoint_last.pt", tmp_path / "new")) == 0
    new = tmp_path / "new"
    assert (
        (new / "dict.a.txt").read_bytes() == (new / "dict.b.txt").read_bytes() == (joined / "dict.a.txt").read_bytes()
    )
    assert (new / "text" / "train.b").read_text() == (corpus / "train.b").read_text()  # it translates from b
    assert (new / "train.a-b.b.bin").read_bytes() == (joined / "train.a-b.b.bin").read_bytes()


def test_a_teacher_of_other_dictionaries_is_refused(
    corpus: Path, teacher: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = binarise(corpus, tmp_path / "bin", "--joined-dictionary")
    for model in (teacher, checkpoint):
        assert main(words(other, model, tmp_path / "new")) == 2
        assert "dictionary of" in capsys.readouterr().err
    assert not (tmp_path / "new.work").exists()
