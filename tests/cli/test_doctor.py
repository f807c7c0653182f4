"""The table marks what is off, says how to mend it, and works with torch or fairseq missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_diffusion.cli import doctor
from fairseq_diffusion.cli.doctor import Finding

ROOT = Path(__file__).resolve().parents[2]


def doctor_without(*modules: str) -> subprocess.CompletedProcess[str]:
    hide = "".join(f"sys.modules[{name!r}] = None\n" for name in modules)
    code = f"import sys\n{hide}from fairseq_diffusion.cli.main import main\nsys.exit(main(['doctor']))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


def row(output: str, name: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(name + " "))


def test_marks():
    assert Finding("a", "1").mark == "ok"
    assert Finding("a", "absent", "pip install a").mark == "OFF"
    assert Finding("a", "absent", "pip install a", required=False).mark == "note"


def test_mending_lines_stand_below_their_row():
    lines = doctor.table([Finding("torch", "2.13"), Finding("x", "absent", "do this\nthen that")]).splitlines()
    assert lines[0] == "torch  ok    2.13"
    assert [line.strip() for line in lines[2:]] == ["-> do this", "-> then that"]


def test_this_installation_is_in_order():
    result = doctor_without()
    assert result.returncode == 0, result.stdout + result.stderr
    assert row(result.stdout, "fairseq")[1] == row(result.stdout, "torch")[1] == "ok"


@pytest.mark.parametrize("missing", [("torch",), ("fairseq",), ("torch", "fairseq")])
def test_works_when_something_required_is_missing(missing):
    result = doctor_without(*missing)
    assert result.returncode == 1, result.stderr
    assert all(row(result.stdout, name)[1] == "OFF" for name in missing)
    assert "pip install" in result.stdout


def test_two_copies_of_fairseq_are_off(monkeypatch):
    monkeypatch.setattr(doctor.compat, "distributions", lambda: {"fairseq": "0.12.2", "fairseq-fixed": "0.12.3.1"})
    (finding,) = doctor.fairseq()
    assert finding.mark == "OFF" and "uninstall" in finding.mend


@pytest.mark.parametrize("state, mark", [("absent", "ok"), ("healthy", "ok"), ("foreign", "note"), ("broken", "note")])
def test_apex(state, mark):
    assert doctor.apex(lambda: state).mark == mark


def test_triton_is_missed_only_on_a_gpu(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: None)
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)
    assert doctor.triton().mark == "ok"
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    assert doctor.triton().mark == "note"
