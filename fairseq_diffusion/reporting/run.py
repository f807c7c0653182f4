"""A run of fairseq-generate with a report at its end."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Callable

from fairseq_diffusion import compat
from fairseq_diffusion.files.writing import write_text
from fairseq_diffusion.reporting.block import render
from fairseq_diffusion.reporting.facts import facts_of
from fairseq_diffusion.reporting.history import history_file, history_path, is_history
from fairseq_diffusion.reporting.output import KIND, is_report, json_path, remove_older
from fairseq_diffusion.reporting.recorder import Recorder

logger = logging.getLogger(__name__)


def run(main: Callable[[Any, Any], Any], cfg: Any, output_file: Any) -> Any:
    """Generate as fairseq does, then print the report; if the report fails, the translations stay."""
    recorder = Recorder(cfg)
    path = json_path(cfg, recorder.shard, recorder.shards)
    if path:
        remove_older(path, is_report)
        remove_older(history_path(path), is_history)
    with (
        compat.watched_loading(recorder.add_checkpoint),
        compat.watched_tasks(recorder.set_task),
        history_file(cfg, path) as recorder.history,
    ):
        scorer = main(cfg, output_file)
        recorder.ended = time.perf_counter()
    try:
        report = json.loads(json.dumps({"kind": KIND, **facts_of(recorder)}, default=str))
        print(render(report), file=output_file)
        if path:
            write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except Exception as error:
        logger.exception("the translations are complete, but the report of them failed")
        print(f"| no report: {type(error).__name__}: {' '.join(str(error).split())}", file=output_file)
    return scorer
