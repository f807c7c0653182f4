"""Untokenised references; other files are refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import is_generated
from fairseq_diffusion.files.texts import looks_tokenised, pieces_in, read_lines


def read_references(paths: list[Path]) -> list[list[str]]:
    """The lines of each file; all have as many."""
    references = [read_reference(path) for path in paths]
    if len({len(lines) for lines in references}) > 1:
        found = ", ".join(f"{path}: {len(lines)}" for path, lines in zip(paths, references))
        raise UserError(f"the references have different numbers of lines ({found}); give those of one test set")
    return references


def read_reference(path: Path) -> list[str]:
    lines = read_lines(path, "--ref")
    if not any(line.strip() for line in lines):
        raise UserError(f"--ref {path} is empty; name the untokenised references, one a line")
    if any(map(is_generated, lines)):
        raise UserError(f"--ref {path} is what fairseq-generate printed; were --hyp and --ref swapped?")
    if pieces := pieces_in(lines):
        raise UserError(f"--ref {path} holds word pieces ({pieces}); {RAW}")
    if looks_tokenised(lines):
        raise UserError(f"--ref {path} is tokenised (such as ` ,`, ` .` or `&apos;`); {RAW}")
    return lines


RAW = (
    "sacreBLEU is defined against untokenised text, so name the file as it was before tokenisation "
    "(BLEU against tokenised references is in the last line of fairseq-generate)"
)


def check_distinct(paths: Iterable[tuple[str, Path]]) -> None:
    """No file is named twice, neither for reading nor for writing."""
    seen: dict[Path, str] = {}
    for flag, path in paths:
        if first := seen.get(path.resolve()):
            raise UserError(f"{path} is named twice, by {first} and by {flag}; name different files")
        seen[path.resolve()] = flag
