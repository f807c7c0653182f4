"""The rule that chooses kernels, by machines that are not here."""

from types import SimpleNamespace

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import choice
from fairseq_diffusion.kernels.launch import precisions

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """What is chosen and what is known of the machine is forgotten again."""
    monkeypatch.setattr(choice, "_chosen", "auto")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    choice.why_no_triton.cache_clear()
    yield
    choice.why_no_triton.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """Pretend that there is a GPU of some capability, and a Triton of some version."""

    def pretend(capability=(9, 0), version="3.6.0"):
        triton = pytest.importorskip("triton")
        monkeypatch.setattr(triton, "__version__", version)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
        monkeypatch.setattr(choice, "_driver", lambda: SimpleNamespace(utils=None))

    return pretend


class Matrix:
    """A matrix on a GPU, as far as the rule looks."""

    device = GPU

    def __init__(self, entries=100):
        self.entries = entries

    def numel(self):
        return self.entries


def test_auto_takes_triton_on_a_gpu_that_has_it_and_for_matrices_that_it_can_count(machine):
    machine()
    assert choice.uses_triton(Matrix(), Matrix())
    assert not choice.uses_triton(Matrix(), Matrix(2**31))
    assert not choice.uses_triton(torch.zeros(2, 2))
    choice.use("portable")
    assert not choice.uses_triton(Matrix())


@pytest.mark.parametrize(
    "what, sentence",
    [
        ({"capability": (7, 5)}, "an old GPU has compute capability 7.5, and they need 8.0"),
        ({"version": "3.1.0"}, "Triton here is 3.1.0, and they need 3.6"),
    ],
)
def test_auto_does_without_where_triton_cannot_be_and_triton_says_why(machine, what, sentence):
    machine(**what)
    assert not choice.uses_triton(Matrix())
    with pytest.raises(UserError, match=f"--kernels is triton, but {sentence}.*--kernels auto"):
        choice.use("triton")


def test_a_gpu_without_a_compiler_for_tritons_launcher_has_portable_kernels(machine, monkeypatch, caplog):
    class Driver:
        @property
        def utils(self):
            raise RuntimeError("Failed to find C compiler.")

    machine()
    monkeypatch.setattr(choice, "_driver", Driver)
    assert not choice.uses_triton(Matrix()) and not choice.uses_triton(Matrix())
    assert caplog.text.count("Failed to find C compiler") == 1
    with pytest.raises(UserError, match="but Triton cannot build its launcher here"):
        choice.use("triton")


def test_triton_is_refused_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="Triton is not installed"):
        choice.use("triton")


def test_triton_is_refused_for_a_model_on_a_cpu(machine):
    machine()
    choice.use("triton")
    assert choice.uses_triton(Matrix())
    with pytest.raises(UserError, match="the model is on the device 'cpu'"):
        choice.uses_triton(torch.zeros(2, 2))


def test_an_unknown_choice_is_explained():
    with pytest.raises(UserError, match="'cuda'.*auto, portable, triton"):
        choice.use("cuda")


def test_tf32_is_taken_where_torch_takes_it_however_torch_was_told():
    matmul, x = torch.backends.cuda.matmul, torch.zeros(1, 1)
    assert precisions(x)["PRECISION"] == "tf32x3" and precisions(x.half())["PRECISION"] == "tf32"
    names = ["allow_tf32", *(["fp32_precision"] if hasattr(matmul, "fp32_precision") else [])]
    for name in names:
        before = getattr(matmul, name)
        try:
            setattr(matmul, name, True if name == "allow_tf32" else "tf32")
            assert precisions(x)["PRECISION"] == "tf32"
        finally:
            setattr(matmul, name, before)
