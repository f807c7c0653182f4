"""The entry point: overview, version, and errors without tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT

import fairseq_diffusion
from fairseq_diffusion.cli.main import COMMANDS, main


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_overview_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(argv) == 0
    overview = capsys.readouterr().out
    assert all(f"  {command}" in overview for command in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == fairseq_diffusion.__version__


def test_unknown_command_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["trane"]) == 2
    error = capsys.readouterr().err
    assert "unknown command 'trane'" in error and all(command in error for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"fairseq-diffusion {command}" in capsys.readouterr().out


def test_user_dir_is_the_package(capsys: pytest.CaptureFixture[str]):
    assert main(["user-dir"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == Path(fairseq_diffusion.__file__).parent and (folder / "tasks").is_dir()


def test_overview_needs_neither_torch_nor_fairseq():
    code = "import sys; sys.modules['torch'] = sys.modules['fairseq'] = None\n"
    code += "from fairseq_diffusion.cli.main import main; sys.exit(main([]) or main(['user-dir']))"
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
