"""Decoding in shards, each a process of fairseq-generate: a shard is written whole or not at all, and only once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any, TextIO

import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.generated import is_generated, sentences
from fairseq_diffusion.output import written_whole

SKIPPED = re.compile(r"samples have invalid sizes and will be skipped, max_positions=\((\d+), (\d+)\)")
LAST_LINES = 5  # of the log, in the sentence for a process that failed


@dataclass
class Shards:
    """The translations of a plan, by its hash, in the folder `work`; `command` starts fairseq-generate."""

    work: Path
    plan: str
    count: int
    command: list[str]

    def path(self, shard: int) -> Path:
        return self.work / f"shard-{shard}-of-{self.count}.tsv"

    def log(self, shard: int) -> Path:
        return self.path(shard).with_suffix(".log")

    def missing(self) -> list[int]:
        return [shard for shard in range(self.count) if self.trailer(shard) is None]

    def trailer(self, shard: int) -> dict[str, Any] | None:
        """What the last line says of a shard that is whole and of this plan; None for anything else."""
        if not self.path(shard).exists():
            return None
        digest = hashlib.sha256()
        with self.path(shard).open("rb") as lines:
            for line in lines:
                if line.startswith(b"{"):
                    return agreed(line, {"plan": self.plan, "sha256": digest.hexdigest()})
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

        When one fails, those that run are finished, and no other is begun.
        """
        todo = sorted(set(wanted) & set(self.missing()))
        places: Queue[dict[str, str]] = Queue()
        for place in places_for(min(jobs, len(todo))):
            places.put(place)

        failed = Event()

        def decode_one(shard: int) -> None:
            if failed.is_set():
                return
            place = places.get()
            try:
                self.decode_shard(shard, place)
            except BaseException:
                failed.set()
                raise
            places.put(place)

        with ThreadPoolExecutor(max(1, jobs)) as executor:
            list(executor.map(decode_one, todo))

    def decode_shard(self, shard: int, place: dict[str, str]) -> None:
        """A process decodes; its sentences are kept, and all else that it says goes to the log."""
        log = self.log(shard)
        log.unlink(missing_ok=True)
        print(f"shard {shard} of {self.count}: decoding; its progress is in {log}", flush=True)
        part = ["--distributed-world-size", str(self.count), "--distributed-rank", str(shard)]
        with log.open("a", encoding="utf-8") as file:
            lines = only_generated(printed([*self.command, *part], place, file), file)
            found = sorted((s.number, s.hypotheses[0].text) for s in sentences(lines) if s.hypotheses)
        self.write(shard, found, limits_in(log))
        print(f"shard {shard} of {self.count}: {len(found):,} sentences", flush=True)

    def write(self, shard: int, found: list[tuple[int, str]], limits: list[int] | None) -> None:
        digest = hashlib.sha256()
        with written_whole(self.path(shard)) as temporary, temporary.open("wb") as file:
            for number, text in found:
                line = f"{number}\t{text}\n".encode()
                digest.update(line)
                file.write(line)
            end = {"plan": self.plan, "sha256": digest.hexdigest(), "longest": limits}
            file.write(f"{json.dumps(end)}\n".encode())


def agreed(line: bytes, wanted: dict[str, str]) -> dict[str, Any] | None:
    """A trailer that says what is `wanted`; one that was cut off says nothing."""
    try:
        trailer = json.loads(line)
    except ValueError:
        return None
    return trailer if trailer.items() >= wanted.items() else None


def places_for(jobs: int) -> list[dict[str, str]]:
    """Environments that put jobs on the GPUs in turn; a single job is left where it is, on the first."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(torch.cuda.device_count())] if said is None else list(filter(None, said.split(",")))
    if jobs < 2 or not gpus:
        return [{} for _ in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]


def printed(command: list[str], place: dict[str, str], log: TextIO) -> Iterator[str]:
    """Lines that a process prints, through a pipe: it breaks when we are killed, and ends the process too.

    Errors go to the log straight away: in the same pipe, a warning could land in the middle of a sentence.
    """
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "LOGLEVEL": "INFO", **place}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as process:
        yield from io.TextIOWrapper(process.stdout, encoding="utf-8", newline="\n")  # type: ignore[arg-type]
    log.flush()
    if process.returncode and not had_no_sentence(Path(log.name)):
        last = Path(log.name).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        raise UserError(
            f"fairseq-generate ended with status {process.returncode}; mend what {log.name} says, and run the same "
            "command again: finished shards are kept. It ends with\n  " + "\n  ".join(last)
        )


def had_no_sentence(log: Path) -> bool:
    """Whether fairseq-generate has ended where it divides by the number of its sentences: more shards than batches."""
    said = log.read_text(encoding="utf-8", errors="replace").rstrip()
    return said.rpartition("\n")[2].startswith("ZeroDivisionError")


def only_generated(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    """Lines that stand for sentences; the others are logged at once, for who looks on."""
    for line in lines:
        if is_generated(line):
            yield line
        else:
            log.write(line)
            log.flush()


def limits_in(log: Path) -> list[int] | None:
    """The longest source and target that fairseq did not skip, which it says where it did skip some."""
    found = SKIPPED.search(log.read_text(encoding="utf-8", errors="replace"))
    return [int(limit) for limit in found.groups()] if found else None
