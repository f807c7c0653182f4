"""Check that links, flags, targets and commands in the documents exist, and that files and functions are not too long.

Flags, make targets and sub-commands are looked up where documents show code (`inline` or fenced).
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fairseq_diffusion"
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40

# Flags of other programs that our documents may name.
FOREIGN_FLAGS = {
    *("--no-build-isolation", "--index-url", "--help", "--version"),  # pip, and any command
    *("--nproc_per_node", "--nproc-per-node", "--nnodes", "--standalone"),  # torchrun
    *("--config-dir", "--config-name"),  # hydra
}


def documents() -> list[Path]:
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    return [path for name in names if (path := ROOT / name).exists()] + sorted((ROOT / "docs").rglob("*.md"))


def code_in(text: str) -> str:
    """What a document shows as code; a fence is cut out first, because it may hold single backquotes."""
    fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    return "\n".join(fence.findall(text) + re.findall(r"`([^`\n]+)`", fence.sub("", text)))


def our_flags() -> set[str]:
    """Flags written in our sources, and one for each dataclass field (as fairseq makes them)."""
    flags = set()
    folders = (ROOT / name for name in ("scripts", "benchmarks", "examples"))
    for path in [*PACKAGE.rglob("*.py"), *(path for folder in folders for path in folder.rglob("*.*"))]:
        if path.suffix not in (".py", ".sh"):
            continue
        text = path.read_text(encoding="utf-8")
        flags.update(re.findall(r"add_argument\(\s*(?:\"-\w\",\s*)?\"(--[\w-]+)\"", text))
        flags.update(re.findall(r"^ +(--[\w-]+)(?: \| -\w)?\)", text, re.MULTILINE))  # cases of a shell script
        for own in re.findall(r"(?:choices|settings)=\((.*)\)", text):  # a recipe's own
            flags.update("--" + name for name in re.findall(r"\[([\w-]+)\]=", own))
        flags.update("--" + name.replace("_", "-") for name in re.findall(r"^    (\w+): .+? = ", text, re.MULTILINE))
    return flags


def old_flags() -> set[str]:
    """What flags of ours were called before, which still work; empty without fairseq, which the models need."""
    try:
        from fairseq_diffusion.compat.renamed import RENAMED_FLAGS, spelt
    except ImportError:
        return set()
    return set(map(spelt, RENAMED_FLAGS))


def fairseq_flags() -> set[str]:
    """Every flag of fairseq's programs, of its translation task, optimisers, schedules and losses; empty if absent."""
    try:
        from fairseq import options
    except ImportError:
        return set()
    import fairseq.models  # noqa: F401  registers what the parsers below list

    parsers = [options.get_training_parser(), options.get_generation_parser(interactive=True)]
    parsers += [options.get_preprocessing_parser(), options.get_eval_lm_parser()]
    flags = {flag for parser in parsers for flag in parser._option_string_actions}
    return flags | chosen_flags()


def chosen_flags() -> set[str]:
    """Flags that appear only when a task, criterion, optimizer or scheduler is chosen, its dataclass fields, or the
    Transformer."""
    from fairseq.models.transformer import TransformerModel
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    dataclasses = list(TASK_DATACLASS_REGISTRY.values())
    for registry in REGISTRIES.values():
        dataclasses += registry["dataclass_registry"].values()
    fields = (name for part in dataclasses for name in getattr(part, "__dataclass_fields__", {}))
    TransformerModel.add_args(parser := argparse.ArgumentParser())
    flags = {"--" + name.replace("_", "-") for name in fields} | parser._option_string_actions.keys()
    return flags | {"--beam", "--lenpen", "--arch"}


def bad_links(path: Path, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        local = target.split("#")[0]
        if local and "://" not in target and not target.startswith("mailto:") and not (path.parent / local).exists():
            yield f"link to {local}, which does not exist"


def bad_flags(text: str, known: set[str]) -> Iterator[str]:
    for flag in sorted(set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text)) - known):
        yield f"flag {flag} is in no program of ours or fairseq's"


def bad_targets(code: str) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for target in re.findall(r"(?:^|[\s`;&])make (?:[A-Z]+=(?:\"[^\"]*\"|\S+) )*([a-z][\w-]*)", code):
        if target not in targets:
            yield f"make target {target} does not exist"


def bad_commands(code: str) -> Iterator[str]:
    sys.path.insert(0, str(ROOT))
    from fairseq_diffusion.cli.main import COMMANDS

    for command in re.findall(r"(?:^|[\s`/($])fairseq-diffusion ([a-z][\w-]*)", code):
        if command not in COMMANDS:
            yield f"sub-command fairseq-diffusion {command} does not exist"


def document_errors() -> Iterator[str]:
    known = our_flags() | old_flags() | fairseq_flags() | FOREIGN_FLAGS
    for path in documents():
        text = path.read_text(encoding="utf-8")
        code = code_in(text)
        for error in (*bad_links(path, text), *bad_flags(code, known), *bad_targets(code), *bad_commands(code)):
            yield f"{path.relative_to(ROOT)}: {error}"


def size_errors() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT)
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            yield f"{where}: {lines} lines; at most {MAX_FILE_LINES}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    yield f"{where}:{node.lineno}: {node.name} has {lines} lines; at most {MAX_FUNCTION_LINES}"


def main() -> int:
    errors = [*document_errors(), *size_errors()]
    print("\n".join(errors) or f"documents and sizes: {len(documents())} documents are in order")
    return int(bool(errors))


if __name__ == "__main__":
    raise SystemExit(main())
