"""A run of fairseq-generate with a report at its end."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError, has_no_room
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
        scorer = generated(main, cfg, output_file, recorder)
    try:
        report = json.loads(json.dumps({"kind": KIND, **facts_of(recorder)}, default=str))
        print(render(report), file=output_file)
        if path:
            write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except (OSError, UserError) as error:
        close(cfg, output_file)
        raise UserError(f"the translations are complete, but there is no report of them: {error}") from error
    except Exception as error:
        logger.exception("the translations are complete, but the report of them failed")
        print(f"| no report: {type(error).__name__}: {' '.join(str(error).split())}", file=output_file)
    return scorer


def generated(main: Callable[[Any, Any], Any], cfg: Any, output_file: Any, recorder: Recorder) -> Any:
    """What fairseq's main returns.  The file that fairseq opened for the translations is removed if there are none."""
    try:
        scorer = main(cfg, output_file)
    except BaseException as error:
        text = close(cfg, output_file)
        if text and recorder.first_batch is None:
            text.unlink(missing_ok=True)
        if not has_no_room(error):
            raise
        raise UserError(f"there is no room for the translations in {text} ({error}); free some space") from error
    recorder.ended = time.perf_counter()
    return scorer


def close(cfg: Any, output_file: Any) -> Path | None:
    """Close the file of --results-path after an error, which closing it later would hide behind another one."""
    if cfg.common_eval.results_path is None:
        return None
    with contextlib.suppress(OSError):
        output_file.close()
    return Path(output_file.name)
