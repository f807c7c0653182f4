"""What a set of translations depends on, stored with it: a rerun continues the same work, or reports what differs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairseq_diffusion.distillation.data import DataBin
from fairseq_diffusion.distillation.teacher import Teacher
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.checksum import sha256
from fairseq_diffusion.files.json_text import read_json
from fairseq_diffusion.files.writing import write_text

Plan = dict[str, Any]


def make_plan(data: DataBin, teacher: Teacher, flags: list[str], shards: int) -> Plan:
    """Files are compared by content and not by path, so a folder may be moved."""
    decoded = [file for file in data.files() if file.name.split(".")[0] in ("dict", "train")]
    return {
        "languages": list(data.languages),
        "data": {file.name: sha256(file) for file in decoded},
        "teacher": [sha256(file) for file in teacher.files],
        "flags": flags,
        "shards": shards,
    }


def plan_hash(plan: Plan) -> str:
    """The hash that each shard stores of its plan."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def prepare_work(plan: Plan, work: Path, restart: bool) -> None:
    """Store the plan in the folder `work`; translations of another plan are replaced only with `restart`."""
    file = work / "plan.json"
    found = differences(read_plan(file), plan) if file.exists() else []
    if found and not restart and any(work.glob("shard-*.tsv")):
        raise UserError(
            f"{work} holds other translations: {'; '.join(found)}. Repeat the earlier command to continue with them, "
            "name another --work, or pass --force to decode again"
        )
    if found:
        print(f"decoding again: {'; '.join(found)}")
    if found or not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(plan, indent=2) + "\n")


def read_plan(file: Path) -> Plan:
    plan = read_json(file, "a plan", "name another --work")
    return plan if isinstance(plan, dict) else {}


def differences(old: Plan, new: Plan) -> list[str]:
    """The differences between two plans, in words."""
    shown = [key for key in ("languages", "flags", "shards") if old.get(key) != new[key]]
    found = [f"{key} then {as_text(old.get(key))}, now {as_text(new[key])}" for key in shown]
    if old.get("teacher") != new["teacher"]:
        found.append("--path then held other weights")
    files = dict(old.get("data") or {})
    changed = sorted(name for name in files.keys() | new["data"].keys() if files.get(name) != new["data"].get(name))
    return found + ([f"the data-bin then had another {', '.join(changed)}"] if changed else [])


def as_text(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
