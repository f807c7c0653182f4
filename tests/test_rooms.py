"""The walls between the rooms: what needs torch alone, and that a paper is named on its own page only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fairseq_diffusion"
TORCH_ONLY = ("kernels", "process", "states", "network", "objective", "samplers", "alignment", "translators")
CODE = sorted(path for path in PACKAGE.rglob("*.py"))
SYSTEMS = sorted(path.stem for path in (PACKAGE / "systems").glob("[!_]*.py") if path.stem != "presets")

IMPORT_ALL = """
import importlib, sys
for blocked in ("fairseq", "hydra", "omegaconf", "sacrebleu"):
    sys.modules[blocked] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def modules(room: str) -> list[str]:
    paths = sorted((PACKAGE / room).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_rooms_import_with_torch_alone():
    names = {room: modules(room) for room in TORCH_ONLY}
    assert all(len(found) > 1 for found in names.values()), "a room has no modules: was it renamed?"
    command = [sys.executable, "-c", IMPORT_ALL, *(name for found in names.values() for name in found)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr


def test_compat_imports_errors_alone():
    """It repairs what it stands on, so all other rooms may import it."""
    files = [path.read_text(encoding="utf-8") for path in (PACKAGE / "compat").glob("*.py")]
    found = {name for text in files for name in re.findall(r"from (fairseq_diffusion[\w.]*) import", text)}
    assert {name for name in found if not name.startswith("fairseq_diffusion.compat")} == {"fairseq_diffusion.errors"}


def docstrings(tree: ast.Module) -> set[int]:
    """Identities of the constants that are docstrings, of attributes too (a string that stands as a statement)."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def words(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, text) of every identifier, module name and string that a program acts on."""
    prose, found = docstrings(tree), []
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "module", "asname"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                found.append((getattr(node, "lineno", 0), text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.append((node.lineno, node.value))
    return found


def named_systems(source: str) -> list[str]:
    """Words of a program that name a paper's page, with their lines: DinoiserStep does, "used" does not name SED."""
    pattern = re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, SYSTEMS))})(?![a-z])", re.IGNORECASE)
    found = [(line, text, re.sub("(?<=[a-z])(?=[A-Z])", "_", text)) for line, text in words(ast.parse(source))]
    return [f"line {line}: {text!r}" for line, text, parts in found if pattern.search(parts)]


def test_there_are_systems():
    assert SYSTEMS


@pytest.mark.parametrize("path", [p for p in CODE if p.parent.name != "systems"], ids=relative)
def test_a_paper_is_named_on_its_own_page_only(path):
    assert named_systems(path.read_text(encoding="utf-8")) == []


def test_the_search_sees_code_and_not_prose():
    name = SYSTEMS[0]
    assert named_systems(f'"""{name}"""\n# {name}\ndef f():\n    """{name.upper()}"""') == []
    for code in (
        f"x = '{name}'",
        f"def {name}_step(): pass",
        f"import a.{name}",
        f"f({name}=1)",
        "class SedStep: pass",
    ):
        assert named_systems(code), code
