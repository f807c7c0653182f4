"""No module of the package imports, by whatever way round, one that imports it.

Imports within functions count, too; those for type checking do not, nor those on a line with a comment
``# late: why``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest
from commands import ROOT

EXEMPT = re.compile(r"# late: \w+")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements below a node; an `if TYPE_CHECKING` has none in its first branch."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node
    skipped = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from statements(child)


def imported(text: str, package: str) -> set[str]:
    """What a source of this package imports: modules, and `module.name` for a name from a module."""
    found, lines = set(), text.splitlines()
    for node in statements(ast.parse(text)):
        if EXEMPT.search(lines[node.lineno - 1]):
            continue
        base = ""
        if isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) + "."
        found |= {base + alias.name for alias in node.names}
    return found


def with_packages(name: str) -> set[str]:
    """The module and every package it lies in, which Python imports first."""
    parts = name.split(".")
    return {".".join(parts[: i + 1]) for i in range(len(parts))}


def graph_of(folder: Path) -> dict[str, set[str]]:
    """What each module below a folder imports of the others.  The packages that a module lies in are there before it,
    so they count only where it imports a name from them."""
    paths = {name_of(path): path for path in folder.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = imported(path.read_text(encoding="utf-8"), package)
        modules = {target if target in paths else target.rpartition(".")[0] for target in targets}
        packages = {part for module in modules for part in with_packages(module)} - with_packages(name)
        graph[name] = (modules | packages) & paths.keys()
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, each imported by the one before it; none where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def test_no_module_imports_itself_by_a_detour():
    graph = graph_of(ROOT / "fairseq_diffusion")
    assert len(graph) > 100
    assert " -> ".join(circle(graph)) == ""


IN_A_FUNCTION = "def f():\n    {}\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\nelse:\n    import os\n"


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        ("{}", True),
        ("try:\n    {}\nexcept ImportError:\n    pass\n", True),
        (IN_A_FUNCTION, True),
        (IN_A_FUNCTION.format("{}  # late:"), True),
        (IN_A_FUNCTION.format("{}  # late: needs a torch that works"), False),
        (FOR_TYPES, False),
        ("if os.name:\n    {}\n", True),
    ],
)
@pytest.mark.parametrize("line", ["import p.b", "from p import b", "from . import b"])
def test_imports_are_found(code: str, counts: bool, line: str):
    assert ("p.b" in imported(code.format(line), "p")) == counts


def test_packages_are_imported_before_what_lies_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By others; a package's own modules import it only where they take a name from it."""
    sources = {
        "p/__init__.py": "from p import a",
        "p/a.py": "import os\nfrom p import b",
        "p/b.py": "from p import name",
        "q.py": "from p.a import name",
    }
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    for path, text in sources.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert graph_of(tmp_path) == {"p": {"p.a"}, "p.a": {"p.b"}, "p.b": {"p"}, "q": {"p", "p.a"}}


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a"}}) == []
    found = circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert found[0] == found[-1] and set(zip(found, found[1:])) == {("a", "b"), ("b", "c"), ("c", "a")}
