"""What a set of translations depends on, kept beside it: a rerun goes on with the same work, or says what differs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairseq_diffusion.distillation.data import DataBin
from fairseq_diffusion.distillation.teacher import Teacher
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.output import written_whole

Plan = dict[str, Any]
BLOCK = 1 << 20


def make_plan(data: DataBin, teacher: Teacher, flags: list[str], shards: int) -> Plan:
    """Contents count and not paths, so a folder may be moved."""
    decoded = [file for file in data.files() if file.name.split(".")[0] in ("dict", "train")]
    return {
        "languages": list(data.languages),
        "data": {file.name: sha256(file) for file in decoded},
        "teacher": [sha256(file) for file in teacher.files],
        "flags": flags,
        "shards": shards,
    }


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_of(plan: Plan) -> str:
    """What each shard says it was decoded by."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def settle(plan: Plan, work: Path, anew: bool) -> None:
    """`work` is for translations of this plan from now on; those of another are given up only if told so (`anew`)."""
    file = work / "plan.json"
    found = differences(read_plan(file), plan) if file.exists() else []
    if found and not anew and list(work.glob("shard-*.tsv")):
        raise UserError(
            f"{work} is for other translations: {'; '.join(found)}. Repeat the earlier command to go on with them, "
            "name another --work, or pass --force to decode anew"
        )
    if found:
        print(f"decoding anew: {'; '.join(found)}")
    if found or not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as temporary:
            temporary.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def read_plan(file: Path) -> Plan:
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); name another --work") from error
    return plan if isinstance(plan, dict) else {}


def differences(old: Plan, new: Plan) -> list[str]:
    """In words, what two plans do not share."""
    said = [key for key in ("languages", "flags", "shards") if old.get(key) != new[key]]
    found = [f"{key} then {in_words(old.get(key))}, now {in_words(new[key])}" for key in said]
    if old.get("teacher") != new["teacher"]:
        found.append("--path then held other weights")
    files = dict(old.get("data") or {})
    changed = sorted(name for name in files.keys() | new["data"].keys() if files.get(name) != new["data"].get(name))
    return found + ([f"the data-bin then had another {', '.join(changed)}"] if changed else [])


def in_words(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
