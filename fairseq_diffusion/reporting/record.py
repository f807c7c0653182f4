"""What is seen of a run of fairseq-generate while it goes on."""

from __future__ import annotations

import re
import time
from typing import Any, Callable

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting.history import History
from fairseq_diffusion.texts import read_lines

OF_A_SENTENCE = re.compile(r"([STHDPAIE])-(\d+)[_\d]*\t(.*)")  # a line that fairseq prints


class Tee:
    """A file, each finished line of which is also shown to `see`."""

    def __init__(self, file: Any, see: Callable[[str], None]):
        self._file, self._see, self._begun = file, see, ""

    def write(self, text: str) -> int:
        *finished, self._begun = (self._begun + text).split("\n")
        for line in finished:
            self._see(line)
        return self._file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Recorder:
    """Lines, times, checkpoints and the parts that took part; it changes nothing of what they do."""

    def __init__(self, cfg: Any):
        self.cfg = cfg
        self.task: Any = None
        self.history: History | None = None
        self.generator: Any = None
        self.models: list[Any] = []
        self.dataset: Any = None
        ranks = cfg.distributed_training  # fairseq-generate takes its shards from here; it does not heed --num-shards
        self.shard, self.shards = ranks.distributed_rank, ranks.distributed_world_size
        self.checkpoints: list[dict[str, Any]] = []
        self.hypotheses: dict[int, str] = {}
        self.references: dict[int, str] = {}
        self.decoded: set[int] = set()
        self.inference_seconds = self.history_seconds = 0.0
        self.begun = self.ended = time.perf_counter()
        self.first_batch: float | None = None
        raw = getattr(cfg.task, "raw_reference", None)
        self.raw = read_lines(raw, "--raw-reference") if raw else None

    @property
    def task_cfg(self) -> Any:
        """The task's own configuration, which knows the languages that fairseq has found in the data-bin."""
        return getattr(self.task, "cfg", self.cfg.task)

    # -- what is said -----------------------------------------------------------------------------------------------

    def see_line(self, line: str) -> None:
        """Keep the references and the best hypothesis of each sentence, which comes first."""
        if not (found := OF_A_SENTENCE.match(line)):
            return
        self.ended = time.perf_counter()
        kind, sentence, text = found[1], int(found[2]), found[3]
        if kind == "H":
            self.hypotheses.setdefault(sentence, text.partition("\t")[2])
        elif kind == "T":
            self.references.setdefault(sentence, text)

    # -- what takes part --------------------------------------------------------------------------------------------

    def see_checkpoint(self, path: str, state: dict[str, Any], ema: bool) -> None:
        """`ema` says whether averaged weights are used; a file that was averaged with --ema knows it itself."""
        extra = state.get("extra_state") or {}
        averaged = list(extra.get("averaged", ()))
        self.checkpoints.append(
            {
                "path": path,
                "system": compat.model_name(state),
                "task": compat.task_name(state),
                "updates": ((state.get("optimizer_history") or [{}])[-1]).get("num_updates"),
                "averaged": averaged,
                "ema": ema or extra.get("averaged_ema", None if averaged else False),
            }
        )

    def see_task(self, task: Any) -> None:
        """Watch the run's task, the first that is set up, at three of its doors."""
        if self.task is None:
            self.task = task
            task.get_batch_iterator = self._watched_batches(task.get_batch_iterator)
            task.build_generator = self._watched_generator(task.build_generator)
            task.inference_step = self._watched_inference(task.inference_step)

    def _watched_batches(self, get: Callable[..., Any]) -> Callable[..., Any]:
        def get_batch_iterator(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            self.dataset = dataset
            self._check_raw()
            return get(dataset, *args, **kwargs)

        return get_batch_iterator

    def _check_raw(self) -> None:
        """Before anything is decoded: a raw reference for each sentence of the subset."""
        if self.raw is not None and len(self.raw) != len(self.dataset):
            raise UserError(
                f"--raw-reference {self.cfg.task.raw_reference} has {len(self.raw)} lines, but the subset "
                f"{self.cfg.dataset.gen_subset} has {len(self.dataset)} sentences; name the file that holds one "
                "untokenised reference a line for each sentence that was binarised"
            )

    def _watched_generator(self, build: Callable[..., Any]) -> Callable[..., Any]:
        def build_generator(models: list[Any], *args: Any, **kwargs: Any) -> Any:
            self.models, self.generator = models, build(models, *args, **kwargs)
            return self.generator

        return build_generator

    def _watched_inference(self, infer: Callable[..., Any]) -> Callable[..., Any]:
        def inference_step(generator: Any, models: Any, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self.first_batch = start if self.first_batch is None else self.first_batch
            hypotheses = infer(generator, models, sample, *args, **kwargs)
            self.ended = time.perf_counter()
            self.inference_seconds += self.ended - start
            self.decoded.update(sample["id"].tolist())
            if self.history:
                self.history.add(self.task, sample, hypotheses)
                self.history_seconds += time.perf_counter() - self.ended
            return hypotheses

        return inference_step
