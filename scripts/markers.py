"""The record of a recipe's step, steps/NAME.json: whole, or known to be damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

STATES = ("begun", "ended", "complete")
ENTRIES = {"state", "identity", "command", "inputs", "outputs", "stale"}
# state, identity, command, inputs, outputs, whether it is stale, and in the file a checksum of these
Record = dict[str, Any]
DAMAGED: Record = {"state": "damaged", "inputs": {}}


def read(marker: Path) -> Record | None:
    """The record of a step; DAMAGED where it is not as it was written, as far as that can be seen."""
    if not marker.exists():
        return None
    try:
        record = json.loads(marker.read_text())
        checksum = record.pop("checksum", None)  # earlier versions wrote none
        whole = checksum in (None, checksum_of(record)) and has_entries(record)
    except (ValueError, RecursionError, AttributeError, IsADirectoryError):
        return DAMAGED
    return record if whole else DAMAGED


def has_entries(record: Record) -> bool:
    """Those that are read, and no others."""
    parts = {"state": str, "identity": str, "command": str, "inputs": dict}
    parts |= {"outputs": dict} if record.get("state") == "complete" else {}
    there = all(isinstance(record.get(key), kind) for key, kind in parts.items())
    return there and record["state"] in STATES and record.keys() <= ENTRIES


def checksum_of(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def write(marker: Path, record: Record) -> None:
    """Whole or not at all."""
    temporary = marker.with_name(f".{marker.name}.tmp")
    temporary.write_text(json.dumps({**record, "checksum": checksum_of(record)}, indent=1) + "\n")
    temporary.replace(marker)
