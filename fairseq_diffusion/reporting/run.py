"""A run of fairseq-generate with a report at its end."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Callable

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError, has_no_room
from fairseq_diffusion.files.writing import write_text
from fairseq_diffusion.reporting.block import render
from fairseq_diffusion.reporting.facts import facts_of
from fairseq_diffusion.reporting.history import history_file
from fairseq_diffusion.reporting.output import KIND, json_path
from fairseq_diffusion.reporting.recorder import Recorder
from fairseq_diffusion.reporting.results import Results, partial

logger = logging.getLogger(__name__)


def run(main: Callable[[Any, Any], Any], cfg: Any, output_file: Any) -> Any:
    """Generate as fairseq does, then print the report.  Without room for it the text may end anywhere in it, so that
    nothing of the run gets its own name."""
    recorder = Recorder(cfg)
    results = results_of(cfg, recorder)
    with (
        compat.watched_loading(recorder.add_checkpoint),
        compat.watched_tasks(recorder.set_task),
        history_file(cfg, partial(results.history) if results else None) as recorder.history,
    ):
        scorer = generated(main, cfg, output_file, recorder)
    if failure := written(recorder, output_file, results):
        raise UserError(f"the translations are complete, but there is no report of them: {failure}") from failure
    if results:
        results.put_in_place()
    return scorer


def results_of(cfg: Any, recorder: Recorder) -> Results | None:
    """None without --results-path.  Shards have reports of their own names."""
    report = json_path(cfg, recorder.shard, recorder.shards)
    return Results(report.with_name(f"generate-{cfg.dataset.gen_subset}.txt"), report) if report else None


def generated(main: Callable[[Any, Any], Any], cfg: Any, output_file: Any, recorder: Recorder) -> Any:
    """What fairseq's main returns."""
    try:
        scorer = main(cfg, output_file)
    except OSError as error:
        if not has_no_room(error):
            raise
        raise UserError(
            f"there is no room for the translations in {output_file.name} ({error}); free some space"
        ) from error
    recorder.ended = time.perf_counter()
    return scorer


def written(recorder: Recorder, output_file: Any, results: Results | None) -> Exception | None:
    """Print and write the report; an error that the user can mend is returned, and any other one is noted there."""
    try:
        report = json.loads(json.dumps({"kind": KIND, **facts_of(recorder)}, default=str))
        print(render(report), file=output_file)
        if results:
            write_text(partial(results.report), json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except (OSError, UserError) as error:
        return error
    except Exception as error:
        logger.exception("the translations are complete, but the report of them failed")
        print(f"| no report: {type(error).__name__}: {' '.join(str(error).split())}", file=output_file)
    return None
