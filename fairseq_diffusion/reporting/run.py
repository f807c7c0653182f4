"""Around fairseq's generate: watch it, and say at its end what was done."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion import compat
from fairseq_diffusion.reporting import output
from fairseq_diffusion.reporting.block import render
from fairseq_diffusion.reporting.facts import facts_of
from fairseq_diffusion.reporting.history import history_file, history_path, make_room
from fairseq_diffusion.reporting.record import Recorder, Tee

logger = logging.getLogger(__name__)


def run(main: Callable[[Any, Any], Any], cfg: Any, output_file: Any) -> Any:
    """Generate as fairseq does, then print the report; whatever is wrong with that, the translations stay."""
    recorder = Recorder(cfg)
    path = output.json_path(cfg, recorder.shard, recorder.shards)
    if path:
        output.make_room(path)
        make_room(history_path(path))
    with (
        compat.watched_loading(recorder.see_checkpoint),
        compat.watched_tasks(recorder.see_task),
        history_file(cfg, path) as recorder.history,
    ):
        scorer = main(cfg, Tee(output_file, recorder.see_line))
    try:
        publish(recorder, output_file, path)
    except Exception as error:
        logger.exception("the translations are complete, but the report of them failed")
        print(f"| no report: {type(error).__name__}: {' '.join(str(error).split())}", file=output_file)
    return scorer


def publish(recorder: Recorder, output_file: Any, path: Path | None) -> None:
    """The JSON file, where there is a folder for it, and the same as text."""
    report = json.loads(json.dumps({"kind": output.KIND, **facts_of(recorder)}, default=str))
    print(render(report), file=output_file)
    if path:
        output.write(report, path)
