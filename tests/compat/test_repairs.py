"""Each repair is tried against a stand-in for the version it is for, and against the fairseq that is installed."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from apart import python_with, write
from support import call, read, training

from fairseq_diffusion import compat


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
    compat.repairs.avoid_encoder_fast_path()
    assert not before.can_use_fastpath and not Layer().can_use_fastpath


def test_fast_path_repair_leaves_other_fairseqs_alone(monkeypatch):
    class Layer(torch.nn.Module):
        pass

    module = importlib.import_module("fairseq.modules.transformer_layer")
    monkeypatch.setattr(module, "TransformerEncoderLayerBase", Layer)
    compat.repairs.avoid_encoder_fast_path()
    assert not hasattr(Layer, "can_use_fastpath")


def test_loaded_encoder_layer_gives_the_same_in_eval_mode_as_in_training_mode():
    """With dropout 0 the modes agree; 0.12.2 after loading weights in eval mode fails without the repair."""
    from fairseq.models.transformer import TransformerConfig
    from fairseq.modules.transformer_layer import TransformerEncoderLayerBase

    compat.repairs.avoid_encoder_fast_path()
    cfg = TransformerConfig(dropout=0.0, activation_dropout=0.0, attention_dropout=0.0)
    cfg.encoder.embed_dim, cfg.encoder.ffn_embed_dim, cfg.encoder.attention_heads = 8, 16, 2
    layer = TransformerEncoderLayerBase(cfg)
    layer.load_state_dict(layer.state_dict())
    x, padding = torch.randn(5, 2, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    evaluated = layer.eval()(x, encoder_padding_mask=padding)
    torch.testing.assert_close(evaluated, layer.train()(x, encoder_padding_mask=padding))


class Killed(BaseException):
    """What nothing catches, as a kill -9."""


def halfway(src_path, dst_path, overwrite=False):
    """A copy that is killed when half of the file is written."""
    whole = Path(src_path).read_bytes()
    Path(dst_path).write_bytes(whole[: len(whole) // 2])
    raise Killed


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """fairseq's PathManager without our repair, a new checkpoint and the older one that it is to replace."""
    from fairseq.file_io import PathManager

    copy = getattr(PathManager.copy, "__wrapped__", PathManager.copy)
    monkeypatch.setattr(PathManager, "copy", staticmethod(copy))
    (tmp_path / "checkpoint_best.pt").write_text("the new one")
    (tmp_path / "checkpoint_last.pt").write_text("the older one")
    return PathManager, str(tmp_path / "checkpoint_best.pt"), str(tmp_path / "checkpoint_last.pt")


@pytest.mark.parametrize("repaired", [False, True])
def test_a_copy_killed_halfway_leaves_what_was_there(copies, monkeypatch, repaired):
    path_manager, new, last = copies
    monkeypatch.setattr(path_manager, "copy", staticmethod(halfway))
    if repaired:
        compat.repairs.copy_checkpoints_atomically()
    with pytest.raises(Killed):
        path_manager.copy(new, last, overwrite=True)
    assert Path(last).read_text() == ("the older one" if repaired else "the n")


def test_a_copy_takes_the_place_of_what_was_there_and_of_a_killed_copys_rest(copies, tmp_path):
    path_manager, new, last = copies
    (tmp_path / "checkpoint_last.pt.tmp").write_text("half of som")
    compat.repairs.copy_checkpoints_atomically()
    assert path_manager.copy(new, last, overwrite=True)
    assert Path(last).read_text() == "the new one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_best.pt", "checkpoint_last.pt"]


@pytest.mark.slow
def test_a_training_killed_within_the_copy_is_resumed(data, tmp_path, monkeypatch):
    """In its second epoch, while checkpoint_last.pt is written from checkpoint_best.pt."""
    from fairseq.file_io import PathManager

    def train(epochs):
        return call("train", *training(data, tmp_path, f"--no-epoch-checkpoints --max-epoch {epochs}"))

    train(1)
    with monkeypatch.context() as patched:
        patched.setattr(PathManager, "copy", staticmethod(halfway))
        compat.repairs.copy_checkpoints_atomically()
        with pytest.raises(Killed):
            train(2)
    assert read(tmp_path / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 2
    train(3)
    assert read(tmp_path / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 4


HALF_BUILT = "class FusedLayerNorm:\n    def __init__(self, size): import fused_layer_norm_cuda\n"
HEALTHY = "class FusedLayerNorm:\n    def __init__(self, *size): pass\n"
APPLIER = "class multi_tensor_applier:\n    available = True\n"
FUSED_ADAM = "import torch\nclass FusedAdam(torch.optim.Adam):\n    multi_tensor_adam = None\n"
APEXES = {
    "foreign": {"apex/__init__.py": "raise SystemExit('must not be imported')"},
    "broken": {"apex/__init__.py": "", "apex/normalization/__init__.py": HALF_BUILT},
    "healthy": {
        "apex/__init__.py": "",
        "apex/normalization/__init__.py": HEALTHY,
        "apex/multi_tensor_apply/__init__.py": APPLIER,
        "apex/optimizers/__init__.py": FUSED_ADAM,
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
compat.repairs.avoid_broken_apex()
print(type(layer_norm.LayerNorm(8)).__mro__[-3 if {healthy} else 0].__module__)
try:
    import apex.normalization
    print("apex stays")
except ImportError:
    print("apex is refused")
from fairseq.optim.fused_adam import get_fused_adam_class
print(get_fused_adam_class())
"""


@pytest.mark.slow
def test_broken_apex_is_replaced_by_torch(tmp_path):
    for name, text in APEXES["broken"].items():
        write(tmp_path / name, text)
    result = python_with(tmp_path, LAYER_NORM.format(healthy=False))
    found = result.stdout.splitlines()[:3]
    assert found == ["torch.nn.modules.normalization", "apex is refused", "None"], result.stderr


@pytest.mark.slow
def test_healthy_apex_is_honoured(tmp_path):
    """By fairseq's models, which take its LayerNorm, and by --optimizer adam, which takes its FusedAdam."""
    for name, text in APEXES["healthy"].items():
        write(tmp_path / name, text)
    result = python_with(tmp_path, LAYER_NORM.format(healthy=True))
    layer_norm, stays, adam = result.stdout.splitlines()
    assert stays == "apex stays", result.stderr
    assert layer_norm == "fairseq.modules.layer_norm" and adam.endswith("FusedAdamV2'>")
