"""What fairseq gets wrong about half precision, with the repair and without."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import optim, options, utils
from fairseq.optim import fp16_optimizer
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from support import training

import fairseq_diffusion
from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError


def parsed(flags: str) -> Any:
    fairseq_diffusion.load()
    given = [str(argument) for argument in training("data", "save", flags)]
    return options.parse_args_and_arch(options.get_training_parser(), given)


def test_bf16_is_no_wish_for_a_tpu():
    assert (parsed("--bf16").bf16, parsed("--bf16").tpu) == (True, False)
    assert parsed("--memory-efficient-bf16").bf16 and not parsed("--memory-efficient-bf16").tpu
    assert parsed("--bf16 --tpu").tpu
    assert not parsed("").bf16
    known, unknown = options.parse_args_and_arch(
        options.get_generation_parser(), ["data", "--bf16", "--something-else"], parse_known=True
    )
    assert not known.tpu and unknown == ["--something-else"]


def test_bf16_is_left_alone_where_there_may_be_a_tpu(monkeypatch):
    original = options.parse_args_and_arch.__wrapped__
    monkeypatch.setattr(options, "parse_args_and_arch", original)
    assert parsed("--bf16").tpu, "fairseq has fixed it: the repair can go"
    monkeypatch.setattr(utils, "xm", SimpleNamespace())
    compat.half.allow_bf16_without_tpu()
    assert options.parse_args_and_arch is original


CFG = OmegaConf.create(
    {
        "common": {"bf16": False, "fp16_init_scale": 128, "fp16_scale_window": 100, "fp16_scale_tolerance": 0.0}
        | {"threshold_loss_scale": None, "min_loss_scale": 1e-4, "fp16_no_flatten_grads": False},
        "optimizer": {"_name": "fused_adam", "lr": [0.1], "adam_eps": 1e-4},
    }
)


def layer(dtype: torch.dtype) -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(3, 2).to(dtype)


def after_steps(flat: bool) -> tuple[Any, torch.nn.Linear]:
    """fairseq's optimiser of --fp16 behind three updates of a layer."""
    model = layer(torch.float16)
    cfg = OmegaConf.merge(CFG, {"common": {"fp16_no_flatten_grads": not flat}})
    optimizer = optim.FP16Optimizer.build_optimizer(cfg, list(model.parameters()))
    for i in range(3):
        optimizer.zero_grad()
        optimizer.backward(model(torch.full((1, 3), i + 1.0, dtype=torch.float16)).square().sum().float())
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
    return optimizer, model


def test_flat_weights_on_a_cpu_do_what_single_ones_do():
    optimizer, model = after_steps(flat=True)
    other, expected = after_steps(flat=False)
    (flat,) = optimizer.fp32_params.values()
    singles = torch.cat([parameter.flatten() for parameter in other.fp32_params])
    torch.testing.assert_close(flat, singles)
    weights = torch.cat([parameter.flatten() for parameter in model.parameters()])
    assert torch.equal(weights, flat.half())
    assert not torch.equal(weights, torch.cat([p.flatten() for p in layer(torch.float16).parameters()]))


def test_single_weights_and_gpus_are_left_to_fairseq(monkeypatch):
    """A stand-in for what fairseq does, on stand-ins for parameters."""
    asked = []
    build = partial(compat.half._flattening_on_cpu, lambda cls, args, params, flatten: asked.append(flatten))
    on_gpu = SimpleNamespace(device=torch.device("cuda:1"))
    build(None, None, [on_gpu], True)
    build(None, None, [torch.zeros(1)], False)
    assert asked == [True, False]
    assert hasattr(fp16_optimizer.FP16Optimizer.build_fp32_params, "is_wrapped")


class Stopped:
    """A trainer as far as the repair looks at it."""

    cuda, cleared = False, False

    def zero_grad(self) -> None:
        self.cleared = True


def failing(cause: type[Exception] | None, error: type[Exception]) -> Any:
    def step(self: Any) -> None:
        if cause is None:
            raise error()
        try:
            raise cause()
        except cause:
            raise error()  # noqa: B904  as fairseq does, unknowingly

    return partial(compat.half._skipping_overflow, step)


@pytest.mark.parametrize("error", [AssertionError, RuntimeError])  # of a torch built without CUDA, and without a driver
def test_an_overflow_is_skipped_and_no_other_error(error):
    trainer = Stopped()
    assert failing(OverflowError, error)(trainer) is None and trainer.cleared
    for cause in (None, ValueError):
        with pytest.raises(error):
            failing(cause, error)(Stopped())
    on_gpu = Stopped()
    on_gpu.cuda = True
    with pytest.raises(error):
        failing(OverflowError, error)(on_gpu)
    assert hasattr(Trainer.train_step, "is_wrapped")


def amp_step(scale: float) -> torch.Tensor:
    """The weights behind one update of --amp, with torch's scaler for CPUs in place of the one for GPUs."""
    model = layer(torch.float32)
    cfg = OmegaConf.merge(CFG, {"common": {"amp_scale_window": None}})
    inner = optim.build_optimizer(cfg.optimizer, list(model.parameters()))
    optimizer = optim.AMPOptimizer(cfg, list(model.parameters()), inner)
    optimizer._grad_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer.backward(1e-3 * model(torch.ones(1, 3)).sum())
    optimizer.multiply_grads(0.5)
    optimizer.clip_grad_norm(0.0)
    optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.skipif(compat.version_tuple(torch.__version__) < (2, 3), reason="torch has a scaler for CPUs from 2.3 on")
def test_amp_unscales_gradients_once(monkeypatch):
    """Behind it, an update is that of scale 1, beside Adam's eps too; fairseq's own is not."""
    expected = amp_step(1.0)
    torch.testing.assert_close(amp_step(4096.0), expected)

    def as_fairseq_has_it(self: Any) -> None:
        self.scaler.step(self.fp32_optimizer)
        self.scaler.update()

    monkeypatch.setattr(optim.AMPOptimizer, "step", as_fairseq_has_it)
    assert (amp_step(4096.0) - expected).abs().min() > 1e-2
    assert math.isclose((amp_step(1.0) - expected).abs().max(), 0)


def test_amp_is_refused_on_a_cpu():
    with pytest.raises(UserError, match="would train in fp32"):
        optim.AMPOptimizer.build_optimizer(CFG, list(layer(torch.float32).parameters()))
