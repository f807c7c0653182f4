"""The table marks problems, prints how to fix them, and works with torch or fairseq missing."""

from __future__ import annotations

import importlib
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
    assert Finding("a", "absent", "pip install a").mark == "FIX"
    assert Finding("a", "absent", "pip install a", required=False).mark == "note"


def test_mending_lines_stand_below_their_row():
    lines = doctor.table([Finding("torch", "2.13"), Finding("x", "absent", "do this\nthen that")]).splitlines()
    assert lines[0] == "torch  ok   2.13"
    assert [line.strip() for line in lines[2:]] == ["-> do this", "-> then that"]


@pytest.mark.slow
def test_this_installation_is_in_order():
    result = doctor_without()
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(row(result.stdout, name)[1] == "ok" for name in ("fairseq", "torch", "fused_adam", "adam", "precision"))


@pytest.mark.parametrize("missing", [("torch",), ("fairseq",), ("torch", "fairseq")])
def test_works_when_something_required_is_missing(missing):
    result = doctor_without(*missing)
    assert result.returncode == 1, result.stderr
    assert all(row(result.stdout, name)[1] == "FIX" for name in missing)
    assert "pip install" in result.stdout


def test_two_copies_of_fairseq_are_off(monkeypatch):
    monkeypatch.setattr(doctor.compat, "distributions", lambda: {"fairseq": "0.12.2", "fairseq-fixed": "0.12.3.1"})
    (finding,) = doctor.fairseq()
    assert finding.mark == "FIX" and "uninstall" in finding.fix


@pytest.mark.parametrize("state, mark", [("absent", "ok"), ("healthy", "ok"), ("foreign", "note"), ("broken", "note")])
def test_apex(state, mark, monkeypatch):
    monkeypatch.setattr(doctor.compat, "apex_state", lambda: state)
    assert doctor.apex().mark == mark


def test_triton_is_missed_only_on_a_gpu(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: None)
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)
    assert doctor.triton().mark == "ok"
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    monkeypatch.setattr("fairseq_diffusion.kernels.choice.why_no_triton", lambda device: "Triton here is too old")
    assert doctor.triton().mark == "note" and "Triton here is too old" in doctor.triton().fix
    monkeypatch.setattr("fairseq_diffusion.kernels.choice.why_no_triton", lambda device: None)
    assert doctor.triton().mark == "ok"


def test_whose_adam(monkeypatch):
    """A stand-in for apex on a machine with a GPU; elsewhere fairseq has its own."""
    module = importlib.import_module("fairseq.optim.fused_adam")
    monkeypatch.setattr(module, "get_fused_adam_class", lambda: object)
    for gpu, state, whose in (
        (True, "healthy", "apex's"),
        (True, "broken", "fairseq's"),
        (False, "healthy", "fairseq's"),
    ):
        monkeypatch.setattr(doctor, "has_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setattr(doctor.compat, "apex_state", lambda state=state: state)
        assert whose in doctor.fairseqs_adam()
    monkeypatch.setattr(module, "get_fused_adam_class", lambda: None)  # an apex built without it
    monkeypatch.setattr(doctor.compat, "apex_state", lambda: "healthy")
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    assert "fairseq's" in doctor.fairseqs_adam()


@pytest.mark.parametrize(
    "flags, known",
    [("sse avx512_bf16", True), ("amx_bf16", True), ("asimd bf16", True), ("avx512f", False)],
)
def test_what_a_cpu_knows_of_bf16(tmp_path, monkeypatch, flags, known):
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    assert doctor.has_bf16(tmp_path / "cpuinfo") == known and not doctor.has_bf16(tmp_path / "none")
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)
    monkeypatch.setattr(doctor, "has_bf16", lambda: known)
    (finding,) = doctor.precisions()
    assert ("WITHOUT" not in finding.found) == known


def test_what_a_gpu_is_good_for(monkeypatch):
    torch = importlib.import_module("torch")
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    for capability, words in (((9, 0), "9.0: --bf16"), ((7, 5), "7.5: --fp16"), ((6, 1), "6.1: fp32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        (finding,) = doctor.precisions()
        assert words in finding.found
