"""What the report needs of a run of fairseq-generate: its parts, the texts of its sentences, and its times."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, TextIO

from fairseq_diffusion import compat
from fairseq_diffusion.compat.batches import EpochBatches
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import read_lines
from fairseq_diffusion.reporting import history
from fairseq_diffusion.reporting.progress import Progress, bar_is_seen
from fairseq_diffusion.reporting.texts import Texts


class Recorder:
    """Wraps three methods of the run's task and keeps what they take and return; it changes none of it."""

    def __init__(self, cfg: Any):
        self.cfg = cfg
        ranks = cfg.distributed_training  # fairseq-generate takes its shards from here; it does not read --num-shards
        self.shard, self.shards = ranks.distributed_rank, ranks.distributed_world_size
        raw = getattr(cfg.task, "raw_reference", None)
        self.raw = read_lines(raw, "--raw-reference") if raw else None
        self.task: Any = None
        self.dataset: Any = None
        self.batches: Any = None
        self.progress: Progress | None = None
        self.models: list[Any] = []
        self.generator: Any = None
        self.texts: Any = None
        self.checkpoints: list[dict[str, Any]] = []
        self.hypotheses: dict[int, str] = {}  # words of the best one of each sentence that was decoded
        self.references: dict[int, str] = {}
        self.history: TextIO | None = None
        self.inference_seconds = self.own_seconds = 0.0  # own: for what is kept here, which fairseq would not do
        self.started = self.ended = time.perf_counter()
        self.first_batch: float | None = None

    @property
    def task_cfg(self) -> Any:
        """The task's own configuration, which has the languages that fairseq found in the data-bin."""
        return getattr(self.task, "cfg", self.cfg.task)

    def add_checkpoint(self, path: str, state: dict[str, Any], ema: bool) -> None:
        """`ema`: averaged weights are used; a file that was averaged with --ema has an entry for that."""
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

    def set_task(self, task: Any) -> None:
        """Record the run's task, the first one that is set up."""
        if self.task is None:
            self.task = task
            task.get_batch_iterator = partial(self._get_batch_iterator, task.get_batch_iterator)
            task.build_generator = partial(self._build_generator, task.build_generator)
            task.inference_step = partial(self._inference_step, task.inference_step)

    def _get_batch_iterator(self, get: Callable[..., Any], dataset: Any, *args: Any, **kwargs: Any) -> Any:
        self.dataset = dataset
        if self.raw is not None and len(self.raw) != len(dataset):
            raise UserError(
                f"--raw-reference {self.cfg.task.raw_reference} has {len(self.raw)} lines, but the subset "
                f"{self.cfg.dataset.gen_subset} has {len(dataset)} sentences; name the file that holds one "
                "untokenised reference a line for each sentence that was binarised"
            )
        self.batches = get(dataset, *args, **kwargs)
        return self.batches

    def _build_generator(self, build: Callable[..., Any], models: list[Any], *args: Any, **kwargs: Any) -> Any:
        self.models, self.generator = models, build(models, *args, **kwargs)
        self.texts = Texts(self.cfg, self.task, self.generator)
        if isinstance(self.batches, EpochBatches) and not bar_is_seen(self.cfg.common):
            self.progress = Progress("translated", self.batches.sizes())
        return self.generator

    def _inference_step(
        self, infer: Callable[..., Any], generator: Any, models: Any, sample: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        start = time.perf_counter()
        self.first_batch = start if self.first_batch is None else self.first_batch
        hypotheses = infer(generator, models, sample, *args, **kwargs)
        decoded = time.perf_counter()
        self._add(sample, hypotheses)
        if self.progress:
            self.progress.add(sample["id"].tolist())
        self.inference_seconds += decoded - start
        self.own_seconds += time.perf_counter() - decoded
        return hypotheses

    def _add(self, batch: dict[str, Any], hypotheses: list[list[dict[str, Any]]]) -> None:
        """Keep the best hypothesis and the reference of each sentence, and write the histories of all."""
        for row, number in enumerate(batch["id"].tolist()):
            self.hypotheses[number] = self.texts.hypothesis(batch, row, hypotheses[row][0])
            if (reference := self.texts.reference(batch, row)) is not None:
                self.references[number] = reference
            if self.history:
                best = hypotheses[row][: self.cfg.generation.nbest]
                self.history.write(history.line(self.texts, batch, row, best))
