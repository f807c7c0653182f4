"""usage: hash_constraints.py INDEX

Write constraints/pyX.Y-hashes.txt: the versions that constraints/pyX.Y.txt pins, with the sha256 sums that the index
lists for their archives for Linux and macOS.  INDEX is the address of a package index that answers in JSON, as for
pip's --index-url.  Run it when a pin changes: pip refuses an archive with another sum.  Left out is what goes with the
torch of the user's choice, and pip, which is there before.
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints"
APART = ("torch", "torchaudio", "triton", "pip")
PIN = re.compile(r"([\w.-]+)==([\w.+!-]+)")
PLATFORMS = re.compile(r"any|(manylinux|macosx)\w*")
JSON = "application/vnd.pypi.simple.v1+json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", metavar="INDEX", help="address of a package index")
    index = parser.parse_args().index.rstrip("/")
    for path in sorted(CONSTRAINTS.glob("py3.??.txt")):
        lines = [hashed(index, name, version, path.stem) for name, version in pins(path)]
        output = path.with_name(f"{path.stem}-hashes.txt")
        head = f"# {path.name} with the sums of the archives, by scripts/hash_constraints.py.\n"
        output.write_text(head + "".join(lines), encoding="utf-8")
        print(f"{output.name}: {len(lines)} packages")
    return 0


def pins(path: Path) -> list[tuple[str, str]]:
    """Names and versions of the packages whose archives are looked at."""
    found = map(PIN.match, path.read_text(encoding="utf-8").splitlines())
    return [(pin[1], pin[2]) for pin in found if pin and pin[1] not in APART]


def hashed(index: str, name: str, version: str, python: str) -> str:
    """NAME==VERSION with the sums of the archives that suit this Python ("py3.11")."""
    page = urllib.request.Request(f"{index}/{normal(name)}/", headers={"Accept": JSON})
    with urllib.request.urlopen(page) as answer:
        files = json.load(answer)["files"]
    sums = sorted({file["hashes"]["sha256"] for file in files if suits(file, name, version, python)})
    if not sums:
        raise SystemExit(f"{index} has no archive of {name} {version} for {python}; is the pin right?")
    return f"{name}=={version} {' '.join(f'--hash=sha256:{found}' for found in sums)}\n"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def suits(file: dict[str, Any], name: str, version: str, python: str) -> bool:
    """Whether an archive is of this version, and of sources or for this Python under Linux or macOS."""
    stem = re.sub(r"\.(tar\.gz|zip|whl)$", "", file["filename"])
    if not file["filename"].endswith(".whl"):
        head, _, found = stem.rpartition("-")
        return normal(head) == normal(name) and found == version
    head, found, *_, tags, abi, platform = stem.split("-")
    minor = int(python.rpartition(".")[2])
    numbers = [int(tag[3:]) for tag in tags.split(".") if re.fullmatch(r"cp3\d+", tag)]
    fits = "py3" in tags.split(".") or minor in numbers or (abi == "abi3" and min(numbers, default=99) <= minor)
    fits = fits and not abi.endswith("t")  # that is free-threaded Python
    return normal(head) == normal(name) and found == version and fits and bool(PLATFORMS.match(platform))


if __name__ == "__main__":
    raise SystemExit(main())
