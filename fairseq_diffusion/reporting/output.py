"""Where a report is written, and reading it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.output import written_whole

KIND = "fairseq-generate, by fairseq-diffusion"  # what tells our files from others


def json_path(cfg: Any, shard: int, shards: int) -> Path | None:
    """Beside fairseq's generate-SUBSET.txt, if it writes one; shards do not share a name."""
    if cfg.common_eval.results_path is None:
        return None
    part = f".shard-{shard}-of-{shards}" if shards > 1 else ""
    return Path(cfg.common_eval.results_path, f"generate-{cfg.dataset.gen_subset}{part}.json")


def read(path: Path) -> dict[str, Any]:
    """A report from its JSON file."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a report ({error}); name a file that generate wrote") from error
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise UserError(f"{path} holds no report of fairseq-generate; name a generate-SUBSET.json that we wrote")
    return report


def make_room(path: Path) -> None:
    """Remove the report of the text that fairseq has just emptied: it must not stand beside another one."""
    if not path.exists():
        return
    try:
        read(path)
    except UserError as error:
        raise UserError(
            f"the report would replace {path}, which we did not write; take another --results-path"
        ) from error
    path.unlink()


def write(report: dict[str, Any], path: Path) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
