"""usage: check_data.py DATA CHECKSUMS RECORD <FILES

Check that a folder has the files a recipe starts from, and the right ones. Each line of FILES is a name and the address
where it is to be had. CHECKSUMS holds published sha256 or md5 sums; for a file without one, its sha256 is entered in
RECORD the first time and compared from then on. Both are read by sha256sum --check, too.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from sums import digest  # noqa: E402

LINE = re.compile(r"([0-9a-f]{32}|[0-9a-f]{64}) [ *](\S+)")
KINDS = {32: "md5", 64: "sha256"}  # by the number of digits


def read(path: Path, has_notes: bool = True) -> dict[str, str]:
    """Sums by name, of lines such as ``SUM  NAME``; a line of another form ends the program, for its file would not be
    compared.  Lines with # in front are notes, which a file that we wrote does not have."""
    found = {}
    text = path.read_text(errors="replace") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not (has_notes and line.startswith("#")):
            if not (match := LINE.fullmatch(line.strip())):
                sys.exit(
                    f"recipe: line {number} of {path.resolve()} is no checksum and name of a file; if you trust the "
                    "data as they are, remove that file, and all are entered anew"
                )
            found[match[2]] = match[1]
    return found


def check(data: Path, files: dict[str, str], published: dict[str, str], recorded: dict[str, str]) -> list[str]:
    """What is wrong; sums that nobody published are entered in `recorded`."""
    wrong = []
    for name, address in files.items():
        if not (data / name).exists() and (data / name.removesuffix(".gz")).exists():
            name = name.removesuffix(".gz")  # unpacked already
        path, wanted = data / name, published.get(name) or recorded.get(name)
        if not path.is_file():
            wrong.append(f"{path} is missing; it is to be had from {address}")
            continue
        found = digest(path, KINDS[len(wanted)] if wanted else "sha256")
        if wanted is None:
            recorded[name] = found
        elif found != wanted:
            whose = "as published" if name in published else "as it was when this recipe first ran"
            wrong.append(
                f"{path} is not {whose}: its {KINDS[len(wanted)]} is {found}, not {wanted}; fetch it again from "
                f"{address}"
            )
    return wrong


def main() -> int:
    data, published, record = Path(sys.argv[1]), read(Path(sys.argv[2])), Path(sys.argv[3])
    files = dict(line.split() for line in sys.stdin if line.strip())
    recorded = read(record, has_notes=False)
    known = set(recorded)
    if wrong := check(data, files, published, recorded):
        print("recipe: the data are not as they should be:", *wrong, sep="\n  ", file=sys.stderr)
        return 2
    temporary = record.with_name(f".{record.name}.tmp")
    temporary.write_text("".join(f"{found}  {name}\n" for name, found in recorded.items()))
    os.replace(temporary, record)
    as_published, first = len(files.keys() & published.keys()), len(recorded.keys() - known)
    print(
        f"data: {as_published} files as published, {len(files) - as_published - first} as recorded before, {first} "
        f"seen for the first time (sha256 now in {record.name})"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
