"""Training in half precision: repairs of fairseq's --bf16, --fp16 and --amp."""

from __future__ import annotations

import sys
from typing import Any, Callable

from fairseq_diffusion.compat.wrapping import wrap_once
from fairseq_diffusion.errors import UserError


def allow_bf16_without_tpu() -> None:
    """Any fairseq: its command line takes --bf16 for a TPU, and stops at one that is not there, on GPUs too.

    "'NoneType' object has no attribute 'xla_device'", facebookresearch/fairseq#4696; not with hydra's configurations.
    Where torch_xla is installed, and where --tpu is asked for, nothing is done.
    """
    from fairseq import options, utils

    if utils.xm is None:
        wrap_once(options, "parse_args_and_arch", _without_tpu)


def _without_tpu(parse: Callable[..., Any], parser: Any, input_args: Any = None, *rest: Any, **named: Any) -> Any:
    found = parse(parser, input_args, *rest, **named)
    args = found[0] if isinstance(found, tuple) else found  # with the arguments it did not know
    if "--tpu" not in (sys.argv if input_args is None else input_args):
        args.tpu = False
    return found


def flatten_on_cpu() -> None:
    """Any fairseq: --fp16 keeps one flat fp32 copy of the weights, on the current GPU even with --cpu."""
    from fairseq.optim import fp16_optimizer

    wrap_once(fp16_optimizer._FP16OptimizerMixin, "build_fp32_params", _flattening_on_cpu)


def _flattening_on_cpu(build: Callable[..., Any], cls: Any, args: Any, params: Any, flatten: bool = True) -> Any:
    import torch

    if not flatten or params[0].device.type != "cpu":
        return build(cls, args, params, flatten)
    flat = torch.nn.Parameter(torch.cat([parameter.detach().float().flatten() for parameter in params]))
    flat.grad = torch.zeros_like(flat)
    return {params[0].device.index: flat}  # fairseq looks the copy up by the device's number, here None


def skip_overflow_on_cpu() -> None:
    """Any fairseq: when gradients overflow, it asks for a zero on the GPU, which ends a training with --cpu."""
    from fairseq.trainer import Trainer

    wrap_once(Trainer, "train_step", _skipping_overflow)


def _skipping_overflow(step: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return step(trainer, *args, **kwargs)
    except (AssertionError, RuntimeError) as error:  # by how torch was built
        if trainer.cuda or not isinstance(error.__context__, OverflowError):
            raise
    trainer.zero_grad()  # the update is skipped, as on a GPU; the loss scale is smaller already
    return None


def unscale_once() -> None:
    """Any fairseq: --amp divides gradients by the loss scale twice, and what remains of them is lost beside Adam's eps.

    It unscales torch's optimiser when clipping, but steps by its own wrapper, which torch takes for another optimiser.
    """
    from fairseq.optim import AMPOptimizer

    wrap_once(AMPOptimizer, "step", _step_unscaled)
    wrap_once(AMPOptimizer, "build_optimizer", _refusing_cpu)


def _step_unscaled(step: Callable[..., Any], optimizer: Any) -> None:
    optimizer.scaler.step(optimizer.optimizer)
    optimizer.scaler.update()


def _refusing_cpu(build: Callable[..., Any], cls: Any, cfg: Any, params: Any, **kwargs: Any) -> Any:
    if params[0].device.type == "cpu":
        raise UserError(
            "--amp works on GPUs only; on this CPU it would train in fp32 without a warning. Drop it, or pass --bf16"
        )
    return build(cls, cfg, params, **kwargs)
