"""Fairseqs we cannot stand on are named, and the installed one is accepted."""

from __future__ import annotations

from importlib import metadata

import pytest
from apart import python_with, write

from fairseq_diffusion import compat


def test_installed_fairseq_is_accepted():
    assert compat.fairseq_problem() is None
    compat.require_fairseq()


@pytest.mark.parametrize(
    "files, found",
    [
        ({"fairseq/__init__.py": "raise ValueError('mutable default')"}, "ValueError: mutable default"),
        ({"fairseq/__init__.py": "__version__ = '0.10.2'"}, "fairseq 0.10.2 is too old"),
        ({"fairseq/__init__.py": "__version__ = '0.12.2'"}, "lacks its compiled part"),
        ({"fairseq/__init__.py": ""}, "is a folder of that name"),
    ],
)
def test_unfit_fairseq_is_named_with_the_install_lines(tmp_path, files, found):
    for name, text in files.items():
        write(tmp_path / name, text)
    result = python_with(tmp_path, "from fairseq_diffusion import compat; compat.require_fairseq()")
    assert result.returncode == 1
    assert found in result.stderr
    assert "fairseq==0.12.2" in result.stderr and "fairseq-fixed==0.12.3.1" in result.stderr


def test_missing_fairseq_mentions_fairseq2(tmp_path):
    write(tmp_path / "fairseq2" / "__init__.py")
    code = "sys.modules['fairseq'] = None\nfrom fairseq_diffusion import compat; compat.require_fairseq()"
    result = python_with(tmp_path, code)
    assert "fairseq is not installed (fairseq2 is installed" in result.stderr


def test_two_copies_are_named_when_fairseq_is_broken(tmp_path):
    write(tmp_path / "fairseq" / "__init__.py", "import nowhere_to_be_found")
    for name in ("fairseq-0.12.2", "fairseq_fixed-0.12.3.1"):
        distribution, version = name.replace("_", "-").rsplit("-", 1)
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        write(tmp_path / f"{name}.dist-info" / "METADATA", text)
    result = python_with(tmp_path, "from fairseq_diffusion import compat; print(compat.fairseq_problem())")
    assert "overwrite each other" in result.stdout


@pytest.mark.parametrize(
    "text, numbers", [("2.13.0+cpu", (2, 13, 0)), ("2.11.0a0+git", (2, 11)), ("0.12.3.1", (0, 12, 3, 1))]
)
def test_version_tuple(text, numbers):
    assert compat.version_tuple(text) == numbers


def test_distributions_are_those_of_pip():
    for name, version in compat.distributions().items():
        assert metadata.version(name) == version
