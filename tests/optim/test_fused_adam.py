"""The fused Adam is fairseq's Adam: same rule, same state, checkpoints that either goes on from."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from fairseq.optim import adam
from torch import nn

from fairseq_diffusion.optim import fused_adam
from fairseq_diffusion.optim.fused_adam import FusedAdam, FusedAdamConfig

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-4, "weight_decay": 0.1}
FORMS = ("fused", "foreach")
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch) -> str:
    monkeypatch.setattr(fused_adam, "adam_implementation", lambda device: request.param)
    return request.param


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=generator).to(dtype)) for size in ((7, 3), (5,), ())]


def gradients(update: int, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """About as large as eps, so that its place in the rule shows; the last parameter has none at first."""
    generator = torch.Generator().manual_seed(update)
    found = [1e-4 * torch.randn(size, generator=generator).to(dtype) for size in ((7, 3), (5,), ())]
    return [*found[:2], found[2] if update > 3 else None]


def walk(optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Updates numbered `first` to `last`, each with another learning rate."""
    (group,) = optimizer.param_groups
    for update in range(first, last + 1):
        group["lr"] = 1e-2 / update**0.5
        for parameter, gradient in zip(group["params"], gradients(update, group["params"][0].dtype)):
            parameter.grad = gradient
        optimizer.step()


def walked(kind: type[torch.optim.Optimizer], last: int, dtype: torch.dtype = torch.float32) -> Any:
    optimizer = kind(parameters(dtype), **SETTINGS)
    walk(optimizer, 1, last)
    return optimizer


def check_same(ours: Any, theirs: Any, dtype: torch.dtype = torch.float32) -> None:
    for one, other in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(one, other, rtol=ROUNDING[dtype], atol=0)
        mine, its = ours.state[one], theirs.state[other]
        assert mine["step"] == its["step"] and mine.keys() == its.keys()
        for name in fused_adam.MOMENTS:
            assert mine[name].dtype == its[name].dtype != torch.float16
            torch.testing.assert_close(mine[name], its[name], rtol=max(1e-5 * ROUNDING[dtype] / 1e-6, 1e-5), atol=1e-30)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_the_rule_is_fairseqs(form, dtype):
    """Over ten updates with decay; torch's own AdamW, whose eps is another, is away from both."""
    ours, theirs = walked(FusedAdam, 10, dtype), walked(adam.Adam, 10, dtype)
    check_same(ours, theirs, dtype)
    if dtype is torch.float32:
        torchs = walked(torch.optim.AdamW, 10).param_groups[0]["params"][0]
        assert (torchs - theirs.param_groups[0]["params"][0]).abs().max() > 1e-3


@pytest.mark.parametrize("kinds", [(adam.Adam, FusedAdam), (FusedAdam, adam.Adam), (FusedAdam, FusedAdam)])
def test_either_goes_on_from_the_others_checkpoint(kinds, tmp_path):
    before, after = kinds
    first = walked(before, 5)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = after([nn.Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]], **SETTINGS)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    walk(second, 6, 10)
    check_same(second, walked(adam.Adam, 10))


def test_goes_on_from_apexs_count_of_a_whole_group():
    first = walked(FusedAdam, 5)
    state = first.state_dict()
    state["param_groups"][0]["step"] = 5
    for entry in state["state"].values():
        del entry["step"]
    second = FusedAdam([nn.Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]], **SETTINGS)
    second.load_state_dict(state)
    walk(second, 6, 6)
    assert {second.state[p]["step"] for p in second.param_groups[0]["params"]} == {6}
    assert first.param_groups[0]["step"] == 5 and second.param_groups[0]["step"] == 6  # and apex from ours


def test_state_moves_back_to_fp32_where_fairseq_puts_what_it_read():
    """--memory-efficient-fp16 replaces the loaded state by that of the file, wherever that lies."""
    optimizer = walked(FusedAdam, 2, torch.float16)
    first = optimizer.param_groups[0]["params"][0]
    optimizer.state[first]["exp_avg"] = optimizer.state[first]["exp_avg"].double()
    walk(optimizer, 3, 3)
    assert optimizer.state[first]["exp_avg"].dtype == torch.float32


def test_a_closure_is_called():
    assert FusedAdam(parameters(), **SETTINGS).step(lambda: 3) == 3


def config(**fields: Any) -> Any:
    from fairseq.dataclass.utils import merge_with_parent
    from omegaconf import OmegaConf

    own = OmegaConf.create({"_name": "fused_adam", "lr": [0.1], **fields})
    return merge_with_parent(FusedAdamConfig(), own)


def test_built_by_fairseq_from_its_name_says_which_kernel(caplog, monkeypatch):
    from fairseq.optim import build_optimizer

    for form, level in (("fused", logging.INFO), ("foreach", logging.WARNING)):
        monkeypatch.setattr(fused_adam, "adam_implementation", lambda device, form=form: form)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            built = build_optimizer(config(adam_betas="(0.8, 0.9)", weight_decay=0.3), parameters())
        found = built.optimizer.defaults
        assert (found["lr"], found["betas"], found["eps"], found["weight_decay"]) == (0.1, (0.8, 0.9), 1e-8, 0.3)
        ((_, severity, message),) = caplog.record_tuples
        assert form in message and torch.__version__ in message and severity == level


def test_a_torch_without_a_fused_kernel_for_a_device_is_noticed(monkeypatch):
    def only_on_gpus(*tensors: Any, fused: bool = False, **rest: Any) -> None:
        raise RuntimeError("`fused=True` requires all the params to be CUDA, floating point Tensor")

    assert fused_adam.adam_implementation.__wrapped__("cpu") == "fused"
    monkeypatch.setattr(fused_adam, "adamw", only_on_gpus)
    assert fused_adam.adam_implementation.__wrapped__("cpu") == "foreach"
