"""usage: records.py RECIPE TABLE OUT [NAME=WORD ...]

In a recipe's folder: a small JSON file in OUT for each row of TABLE, which is JSON, too, with its scores, how
the model was trained and its translations were made, both commands, and what it ran on. RECIPE names the script, and
each NAME=WORD a choice of the user's. Nothing in a record is text of the corpus.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from training_time import progress

SCORES = ("sacrebleu", "tokenised", "chrf", "ter", "brevity_penalty", "length_ratio", "repetition", "notes")


class Unusable(Exception):
    """Which file, and why."""


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        write_records(*sys.argv[1:])
    except (Unusable, LookupError, TypeError, AttributeError, ValueError, OSError) as error:
        sys.exit(
            f"recipe: a table, a report or a record of a step is not as it was written: {type(error).__name__}, "
            f"{error}; pass --redo to the recipe for the step that wrote it"
        )


def write_records(recipe: str, scored: str, out: str, *choices: str) -> None:
    table, folder = read(Path(scored)), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"recipe": recipe, **dict(choice.split("=", 1) for choice in choices)}
    for row in table["rows"]:
        record = {"name": row["name"], **about, **record_of(row, table["signatures"])}
        name = re.sub(r"[^a-z0-9]+", "-", row["name"].lower())
        (folder / f"{name}.json").write_bytes(f"{json.dumps(record, indent=1, ensure_ascii=False)}\n".encode())


def record_of(row: dict[str, Any], signatures: dict[str, str]) -> dict[str, Any]:
    results = Path(row["file"]).parent
    report = read(Path(row["file"]).with_suffix(".json"))
    model = Path(report["checkpoints"][0]["path"]).parent.name
    updates, hours = progress(Path("checkpoints") / model / "checkpoint_last.pt")
    return {
        "model": model,
        "scores": {name: row[name] for name in SCORES if name in row},
        "signatures": signatures,
        "training": {"updates": updates, "minutes": round(60 * hours, 1), "command": command(f"train-{model}")},
        "translating": {
            "calls": row["calls"],
            "sentences_per_second": report["speed"]["inference_step"]["sentences_per_second"],
            "command": command(f"decode-{results.name}"),
            "settings": report["decoding"],
        },
        "environment": report["environment"],
        "data": dict(reversed(line.split(maxsplit=1)) for line in lines(Path("data.sha256"))),
    }


def command(step: str) -> str:
    """As it was run."""
    said = read(Path("steps", f"{step}.json"))
    return re.sub(r"\s*\\\n\s*", " ", said["command"]).strip()


def read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(f"{path} cannot be read ({error})") from error


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
