"""The files of a report: where they are written, and reading the report back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.json_text import fits, is_count, is_number, is_text, maybe, read_json

KIND = "fairseq-generate, by fairseq-diffusion"  # in every report, to recognise our files

NUMBERS = {"steps": maybe(is_count), "passes": maybe(is_count), "calls": maybe(is_number), "decoder": maybe(is_text)}
SHAPE = {  # what is read of a report
    "system": maybe(is_text),
    "decoding": maybe({**NUMBERS, "draft": lambda draft: not isinstance(draft, dict) or fits(draft, NUMBERS)}),
    "data": maybe({"languages": maybe(is_text), "skipped": maybe(is_count)}),
}


def json_path(cfg: Any, shard: int, shards: int) -> Path | None:
    """Beside fairseq's generate-SUBSET.txt, if it writes one; shards do not share a name."""
    if cfg.common_eval.results_path is None:
        return None
    part = f".shard-{shard}-of-{shards}" if shards > 1 else ""
    return Path(cfg.common_eval.results_path, f"generate-{cfg.dataset.gen_subset}{part}.json")


def read(path: Path) -> dict[str, Any]:
    """A report from its JSON file."""
    report = read_json(path, "a report", "name a file that generate wrote")
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise UserError(f"{path} holds no report of fairseq-generate; name a generate-SUBSET.json that we wrote")
    if not fits(report, SHAPE):
        raise UserError(f"{path} is a report with values of other types, so it was changed; decode again")
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
