"""Training in half precision: what fairseq gets wrong about --bf16, --fp16 and --amp."""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable

from fairseq_diffusion.errors import UserError


def part_bf16_from_tpu() -> None:
    """Any fairseq: its command line takes --bf16 for a TPU, and stops at one that is not there, on GPUs too.

    "'NoneType' object has no attribute 'xla_device'", facebookresearch/fairseq#4696; hydra's configurations are spared.
    Where torch_xla is installed, and where --tpu is asked for, nothing is done.
    """
    from fairseq import options, utils

    if utils.xm is None and not hasattr(options.parse_args_and_arch, "parts_bf16"):
        options.parse_args_and_arch = _without_tpu(options.parse_args_and_arch)


def _without_tpu(parse: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(parse)
    def parse_args_and_arch(parser: Any, input_args: Any = None, *rest: Any, **named: Any) -> Any:
        found = parse(parser, input_args, *rest, **named)
        args = found[0] if isinstance(found, tuple) else found  # with the arguments it did not know
        if "--tpu" not in (sys.argv if input_args is None else input_args):
            args.tpu = False
        return found

    parse_args_and_arch.parts_bf16 = True  # type: ignore[attr-defined]
    return parse_args_and_arch


def flatten_on_cpu() -> None:
    """Any fairseq: --fp16 keeps one flat fp32 copy of the weights, on the current GPU even with --cpu."""
    from fairseq.optim import fp16_optimizer

    mixin = fp16_optimizer._FP16OptimizerMixin
    if not hasattr(mixin.build_fp32_params, "knows_cpu"):
        mixin.build_fp32_params = classmethod(_knowing_cpu(mixin.build_fp32_params.__func__))


def _knowing_cpu(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def build_fp32_params(cls: Any, args: Any, params: Any, flatten: bool = True) -> Any:
        import torch

        if not flatten or params[0].device.type != "cpu":
            return build(cls, args, params, flatten)
        flat = torch.nn.Parameter(torch.cat([parameter.detach().float().flatten() for parameter in params]))
        flat.grad = torch.zeros_like(flat)
        return {params[0].device.index: flat}  # by that number, None, fairseq finds its way back

    build_fp32_params.knows_cpu = True  # type: ignore[attr-defined]
    return build_fp32_params


def survive_overflow_on_cpu() -> None:
    """Any fairseq: when gradients overflow, it asks for a zero on the GPU, which ends a training with --cpu."""
    from fairseq.trainer import Trainer

    if not hasattr(Trainer.train_step, "survives"):
        Trainer.train_step = _surviving(Trainer.train_step)


def _surviving(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def train_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return step(self, *args, **kwargs)
        except (AssertionError, RuntimeError) as error:  # by how torch was built
            if self.cuda or not isinstance(error.__context__, OverflowError):
                raise
        self.zero_grad()  # the update is left out, as on a GPU; the loss scale is smaller already
        return None

    train_step.survives = True  # type: ignore[attr-defined]
    return train_step


def unscale_once() -> None:
    """Any fairseq: --amp divides gradients by the loss scale twice, and what remains of them is lost beside Adam's eps.

    It unscales torch's optimiser when clipping, but steps by its own wrapper, which torch takes for another optimiser.
    """
    from fairseq.optim import AMPOptimizer

    if not hasattr(AMPOptimizer.step, "unscales_once"):
        AMPOptimizer.step = _step_unscaled
        AMPOptimizer.build_optimizer = classmethod(_refusing_cpu(AMPOptimizer.build_optimizer.__func__))


def _step_unscaled(self: Any) -> None:
    self.scaler.step(self.optimizer)
    self.scaler.update()


_step_unscaled.unscales_once = True  # type: ignore[attr-defined]


def _refusing_cpu(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def build_optimizer(cls: Any, cfg: Any, params: Any, **kwargs: Any) -> Any:
        if params[0].device.type == "cpu":
            raise UserError(
                "--amp works on GPUs alone, and on this CPU it would train in fp32 without saying so; drop it, or pass "
                "--bf16"
            )
        return build(cls, cfg, params, **kwargs)

    return build_optimizer
