"""Each repair is tried against a stand-in for the version it is for, and against the fairseq that is installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from argparse import Namespace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def restore_ema():
    yield
    compat.prefer_ema(False)


def python_with(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new Python that finds modules in `folder` before the installed ones."""
    before = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    return subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=False)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# -- which fairseq


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


# -- repairs


def test_patch_twice_changes_nothing_more():
    from fairseq import checkpoint_utils

    compat.patch()
    first = checkpoint_utils.load_checkpoint_to_cpu
    compat.patch()
    assert checkpoint_utils.load_checkpoint_to_cpu is first


def test_argparse_namespace_loads_under_the_safe_default(tmp_path):
    torch.save({"args": Namespace(arch="transformer")}, tmp_path / "old.pt")
    compat.allow_argparse_checkpoints()
    assert torch.load(tmp_path / "old.pt")["args"].arch == "transformer"


def test_fast_path_is_refused_where_there_is_one(monkeypatch):
    """A stand-in with the attribute and the method of 0.12.2's layer."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.can_use_fastpath = True

        def _load_from_state_dict(self, *args):
            pass

    module = importlib.import_module("fairseq.modules.transformer_layer")
    monkeypatch.setattr(module, "TransformerEncoderLayerBase", Layer)
    before = Layer()
    compat.avoid_encoder_fast_path()
    assert not before.can_use_fastpath and not Layer().can_use_fastpath


def test_fast_path_repair_leaves_other_fairseqs_alone(monkeypatch):
    class Layer(torch.nn.Module):
        pass

    module = importlib.import_module("fairseq.modules.transformer_layer")
    monkeypatch.setattr(module, "TransformerEncoderLayerBase", Layer)
    compat.avoid_encoder_fast_path()
    assert not hasattr(Layer, "can_use_fastpath")


def test_loaded_encoder_layer_gives_the_same_in_eval_mode_as_in_training_mode():
    """With dropout 0 the modes agree; 0.12.2 after loading weights in eval mode fails without the repair."""
    from fairseq.models.transformer import TransformerConfig
    from fairseq.modules.transformer_layer import TransformerEncoderLayerBase

    compat.avoid_encoder_fast_path()
    cfg = TransformerConfig(dropout=0.0, activation_dropout=0.0, attention_dropout=0.0)
    cfg.encoder.embed_dim, cfg.encoder.ffn_embed_dim, cfg.encoder.attention_heads = 8, 16, 2
    layer = TransformerEncoderLayerBase(cfg)
    layer.load_state_dict(layer.state_dict())
    x, padding = torch.randn(5, 2, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    evaluated = layer.eval()(x, encoder_padding_mask=padding)
    torch.testing.assert_close(evaluated, layer.train()(x, encoder_padding_mask=padding))


HALF_BUILT = "class FusedLayerNorm:\n    def __init__(self, size): import fused_layer_norm_cuda\n"
HEALTHY = "class FusedLayerNorm:\n    def __init__(self, *size): pass\n"
APEXES = {
    "foreign": {"apex/__init__.py": "raise SystemExit('must not be imported')"},
    "broken": {"apex/__init__.py": "", "apex/normalization/__init__.py": HALF_BUILT},
    "healthy": {
        "apex/__init__.py": "",
        "apex/normalization/__init__.py": HEALTHY,
        "fused_layer_norm_cuda.py": "",
    },
}


@pytest.mark.parametrize("state", ["absent", *APEXES])
def test_apex_state(tmp_path, state):
    for name, text in APEXES.get(state, {}).items():
        write(tmp_path / name, text)
    hide = "sys.modules['apex'] = None\n" if state == "absent" else ""
    result = python_with(tmp_path, hide + "from fairseq_diffusion import compat; print(compat.apex_state())")
    assert result.stdout.strip() == state, result.stderr


LAYER_NORM = """
import torch, fairseq.modules.layer_norm as layer_norm
from fairseq_diffusion import compat
assert layer_norm.has_fused_layernorm
torch.cuda.is_available = lambda: True
compat.avoid_broken_apex()
print(type(layer_norm.LayerNorm(8)).__mro__[-3 if {healthy} else 0].__module__)
try:
    import apex.normalization
    print("apex stays")
except ImportError:
    print("apex is refused")
"""


def test_broken_apex_is_replaced_by_torch(tmp_path):
    for name, text in APEXES["broken"].items():
        write(tmp_path / name, text)
    result = python_with(tmp_path, LAYER_NORM.format(healthy=False))
    assert result.stdout.split("\n")[:2] == ["torch.nn.modules.normalization", "apex is refused"], result.stderr


def test_healthy_apex_is_honoured(tmp_path):
    for name, text in APEXES["healthy"].items():
        write(tmp_path / name, text)
    result = python_with(tmp_path, LAYER_NORM.format(healthy=True))
    assert result.stdout.split("\n")[1] == "apex stays", result.stderr
    assert "fairseq.modules.layer_norm" in result.stdout


# -- checkpoints


def save(path: Path, task: str = compat.OUR_TASK, **extra: object) -> str:
    """A checkpoint with what fairseq's upgrade of old checkpoints asks for, and one weight."""
    state = {
        "cfg": {"task": {"_name": task}, "model": {"_name": "any"}},
        "model": {"weight": torch.zeros(1)},
        "optimizer_history": [{"optimizer_name": "Adam", "lr_scheduler_state": {}, "num_updates": 1}],
        "extra_state": {"train_iterator": {"epoch": 1}, **extra},
    }
    torch.save(state, path)
    return str(path)


def load(path: str) -> dict:
    from fairseq import checkpoint_utils

    compat.wrap_checkpoint_loading()
    return checkpoint_utils.load_checkpoint_to_cpu(path)


def test_truncated_checkpoint_names_file_size_and_remedy(tmp_path):
    path = save(tmp_path / "checkpoint.pt")
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{path} \({len(whole) // 2} bytes\): it is truncated.*--restore-file"):
        load(path)


def test_empty_checkpoint(tmp_path):
    (tmp_path / "empty.pt").touch()
    with pytest.raises(UserError, match=r"empty.pt \(0 bytes\)"):
        load(str(tmp_path / "empty.pt"))


def test_bare_weights_are_no_fairseq_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match="no fairseq checkpoint"):
        load(str(tmp_path / "bare.pt"))


@pytest.mark.skipif(compat.version_tuple(torch.__version__) < (2, 6), reason="torch loads any object before 2.6")
def test_unsafe_objects_are_explained(tmp_path):
    torch.save({"path": Path("unsafe")}, tmp_path / "unsafe.pt")
    with pytest.raises(UserError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        load(str(tmp_path / "unsafe.pt"))


def test_missing_file_stays_a_file_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "nowhere.pt"))


def test_ema_is_used_only_when_preferred(tmp_path):
    path = save(tmp_path / "ema.pt", ema={"weight": torch.ones(1)})
    assert load(path)["model"]["weight"] == 0
    compat.prefer_ema(True)
    assert load(path)["model"]["weight"] == 1
    compat.prefer_ema(False)
    assert load(path)["model"]["weight"] == 0


def test_our_checkpoint_without_ema_is_refused_and_a_teacher_is_not(tmp_path):
    compat.prefer_ema(True)
    with pytest.raises(UserError, match="--store-ema, or drop --use-ema"):
        load(save(tmp_path / "ours.pt"))
    assert load(save(tmp_path / "teacher.pt", task="translation"))["model"]["weight"] == 0


def test_task_of_an_argparse_checkpoint_without_ema():
    state = {"args": Namespace(task=compat.OUR_TASK), "model": {}, "extra_state": {}}
    with pytest.raises(UserError):
        compat.with_ema(state, "old.pt")
