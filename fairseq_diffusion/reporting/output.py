"""The files of a report: where they are written, and reading the report back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion.errors import UserError

KIND = "fairseq-generate, by fairseq-diffusion"  # in every report, to recognise our files


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


def is_report(path: Path) -> bool:
    try:
        return bool(read(path))
    except UserError:
        return False


def check_ours(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to take the place of a file that no run of ours wrote."""
    if path.exists() and not is_ours(path):
        raise UserError(f"this run would replace {path}, which we did not write; take another --results-path")
