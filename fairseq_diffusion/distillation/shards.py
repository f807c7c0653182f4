"""Decoding in shards, each a process of fairseq-generate: a shard's file is complete or does not exist."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TextIO

import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import Sentence, is_generated, sentences
from fairseq_diffusion.files.json_text import fits, is_count, is_text, maybe, parsed
from fairseq_diffusion.files.locks import Lock
from fairseq_diffusion.files.writing import atomic_write
from fairseq_diffusion.reporting.progress import Progress

SKIPPED = re.compile(r"samples have invalid sizes and will be skipped, max_positions=\((\d+), (\d+)\)")
TRAILER = {"plan": is_text, "sha256": is_text, "longest": maybe([is_count])}
LAST_LINES = 5  # of the log, in the sentence for a process that failed


@dataclass
class Shards:
    """The translations of a plan, by its hash, in the folder `work`; `command` starts fairseq-generate."""

    work: Path
    plan: str
    count: int
    command: list[str]
    progress: Progress | None = None

    def path(self, shard: int) -> Path:
        return self.work / f"shard-{shard}-of-{self.count}.tsv"

    def log(self, shard: int) -> Path:
        return self.path(shard).with_suffix(".log")

    def missing(self) -> list[int]:
        return [shard for shard in range(self.count) if self.trailer(shard) is None]

    def trailer(self, shard: int) -> dict[str, Any] | None:
        """The last line of a shard's file, as JSON, if the file is complete and of this plan; else None."""
        if not self.path(shard).exists():
            return None
        digest = hashlib.sha256()
        with self.path(shard).open("rb") as lines:
            for line in lines:
                if line.startswith(b"{"):
                    return matching_trailer(line, {"plan": self.plan, "sha256": digest.hexdigest()})
                digest.update(line)
        return None

    def limits(self) -> list[int] | None:
        """The longest source and target that were not skipped; None where nothing was."""
        trailers = (self.trailer(shard) or {} for shard in range(self.count))
        return next((found["longest"] for found in trailers if found.get("longest")), None)

    def translations(self, shard: int) -> Iterator[tuple[int, str]]:
        """Number and best hypothesis of each sentence, in the order of the numbers."""
        with self.path(shard).open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                if not line.startswith("{"):
                    number, _, text = line.rstrip("\n").partition("\t")
                    yield int(number), text

    def decode(self, wanted: list[int], jobs: int) -> None:
        """Those of `wanted` that are missing, `jobs` at a time, each job on its GPU.

        When one fails, those that run are finished, and no other is started.
        """
        todo = sorted(set(wanted) & set(self.missing()))
        environments = deque(environments_for(min(jobs, len(todo))))  # those that no running job has
        failed = Event()

        def decode_one(shard: int) -> None:
            if failed.is_set():
                return
            environment = environments.popleft()
            try:
                self.decode_shard(shard, environment)
            except BaseException:
                failed.set()
                raise
            environments.append(environment)

        with ThreadPoolExecutor(max(1, jobs)) as executor:
            list(executor.map(decode_one, todo))

    def decode_shard(self, shard: int, environment: dict[str, str]) -> None:
        """Decode in a process, unless another command does; its sentences are written to the shard's file, its other
        lines to the log."""
        path = self.path(shard)
        with Lock(path.with_name(f".{path.name}.lock"), path, "name another --work"):
            self._decode_shard(shard, environment)

    def _decode_shard(self, shard: int, environment: dict[str, str]) -> None:
        log = self.log(shard)
        log.unlink(missing_ok=True)
        print(f"shard {shard} of {self.count}: decoding; its progress is in {log}", flush=True)
        part = ["--distributed-world-size", str(self.count), "--distributed-rank", str(shard)]
        with log.open("a", encoding="utf-8") as file:
            lines = sentence_lines(process_lines([*self.command, *part], environment, file), file)
            found = sorted((s.number, s.hypotheses[0].text) for s in map(self.seen, sentences(lines)) if s.hypotheses)
        self.write(shard, found, limits_in(log))
        print(f"shard {shard} of {self.count}: {len(found):,} sentences", flush=True)

    def seen(self, sentence: Sentence) -> Sentence:
        """The sentence, once it is counted; its number is checked when all are gathered."""
        if self.progress and sentence.number in self.progress.sizes:
            self.progress.add([sentence.number])
        return sentence

    def write(self, shard: int, found: list[tuple[int, str]], limits: list[int] | None) -> None:
        digest = hashlib.sha256()
        with atomic_write(self.path(shard)) as temporary, temporary.open("wb") as file:
            for number, text in found:
                line = f"{number}\t{text}\n".encode()
                digest.update(line)
                file.write(line)
            end = {"plan": self.plan, "sha256": digest.hexdigest(), "longest": limits}
            file.write(f"{json.dumps(end)}\n".encode())


def matching_trailer(line: bytes, wanted: dict[str, str]) -> dict[str, Any] | None:
    """A trailer with the entries `wanted`; None for another one, or one that was cut off."""
    try:
        trailer = parsed(line.decode())
    except ValueError:
        return None
    return trailer if fits(trailer, TRAILER) and trailer.items() >= wanted.items() else None


def environments_for(jobs: int) -> list[dict[str, str]]:
    """Environment variables that assign jobs to GPUs in turn; a single job gets none, and runs on the first."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = map(str, range(torch.cuda.device_count()))
    gpus = list(every if visible is None else filter(None, visible.split(",")))
    if jobs < 2 or not gpus:
        return [{} for _ in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]


def process_lines(command: list[str], extra: dict[str, str], log: TextIO) -> Iterator[str]:
    """Lines that a process prints, through a pipe, so that it ends too when we are killed.

    Errors go to the log directly: in the same pipe, a warning could appear in the middle of a sentence.
    """
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "LOGLEVEL": "INFO", **extra}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as process:
        yield from io.TextIOWrapper(process.stdout, encoding="utf-8", newline="\n")  # type: ignore[type-var]
    log.flush()
    if process.returncode and not is_empty_shard(Path(log.name)):
        last = Path(log.name).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        raise UserError(
            f"fairseq-generate ended with status {process.returncode}; correct the error in {log.name}, and run "
            "the same command again: finished shards are kept. It ends with\n  " + "\n  ".join(last)
        )


def is_empty_shard(log: Path) -> bool:
    """Whether fairseq-generate failed on dividing by its number of sentences, 0: more shards than batches."""
    text = log.read_text(encoding="utf-8", errors="replace").rstrip()
    return text.rpartition("\n")[2].startswith("ZeroDivisionError")


def sentence_lines(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    """Lines of sentences; the others are written to the log at once."""
    for line in lines:
        if is_generated(line):
            yield line
        else:
            log.write(line)
            log.flush()


def limits_in(log: Path) -> list[int] | None:
    """The longest source and target that fairseq does not skip; None if it skipped nothing."""
    found = SKIPPED.search(log.read_text(encoding="utf-8", errors="replace"))
    return [int(limit) for limit in found.groups()] if found else None
