"""The registered optimiser ``--optimizer fused_adam``: fairseq's Adam, computed by torch's fused kernel.

No annotations from the future here: fairseq reads the types of the flags.
"""

import functools
import logging
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, adam, register_optimizer
from omegaconf import II
from torch import Tensor
from torch.optim.adamw import adamw

from fairseq_diffusion.models.config import flag

logger = logging.getLogger(__name__)
HALF = (torch.float16, torch.bfloat16)
MOMENTS = ("exp_avg", "exp_avg_sq")


class FusedAdam(adam.Adam):
    """fairseq's Adam with the same state and the same update, for all parameters at once.

    fairseq has theta *= 1 - lr decay, then theta -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps); torch has
    the same with sqrt(1 - beta2^t) eps for eps, and is given eps / sqrt(1 - beta2^t).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            groups: dict[tuple[int, torch.device], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter] = self._next_state(parameter, group)
                    groups.setdefault((state["step"], parameter.device), []).append(parameter)
            for (step, device), parameters in groups.items():
                self._update(group, step, device, parameters)
        return loss

    def _next_state(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The parameter's state with the step of this update; moments are in fp32 even where the parameter is not."""
        state, dtype = self.state[parameter], torch.float if parameter.dtype in HALF else parameter.dtype
        if not state:
            return {"step": 1, **{name: torch.zeros_like(parameter, dtype=dtype) for name in MOMENTS}}
        step = state["step"] if "step" in state else group["step"]  # apex has the step in the group
        return {"step": step + 1, **{name: state[name].to(parameter.device, dtype) for name in MOMENTS}}

    def _update(self, group: dict[str, Any], step: int, device: torch.device, parameters: list[Tensor]) -> None:
        """The update numbered `step` of parameters on one device."""
        group["step"] = max(step, group.get("step", 0))  # for apex, if it continues this training
        copies = [in_fp32(parameter) for parameter in parameters]
        means, squares = ([self.state[parameter][name] for parameter in parameters] for name in MOMENTS)
        form: dict[str, Any] = {adam_implementation(device.type): True}
        beta1, beta2 = group["betas"]
        adamw(
            copies,
            [in_fp32(parameter.grad) for parameter in parameters],  # type: ignore[arg-type]
            means,
            squares,
            max_exp_avg_sqs=[],
            # made on the host, so that no step is read from the device
            state_steps=list(torch.full((len(copies),), step - 1.0, device=device).unbind()),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"] / math.sqrt(1 - beta2**step),
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            amsgrad=False,
            maximize=False,
            **form,
        )
        for parameter, copy in zip(parameters, copies):
            if copy is not parameter:
                parameter.copy_(copy)


def in_fp32(x: Tensor) -> Tensor:
    """x, in fp32 if it was in half precision."""
    return x.float() if x.dtype in HALF else x


@functools.lru_cache
def adam_implementation(device: str) -> str:
    """Either "fused", or "foreach" where this torch has no fused Adam for such devices (a CPU before torch 2.4)."""
    x = torch.zeros(1, device=device)
    rates = {"beta1": 0.9, "beta2": 0.9, "lr": 0.0, "weight_decay": 0.0, "eps": 1.0}
    rest: dict[str, Any] = {"amsgrad": False, "maximize": False, **rates}
    try:
        adamw([x], [x.clone()], [x.clone()], [x.clone()], [], [x[0].clone()], fused=True, **rest)
    except (RuntimeError, NotImplementedError):
        return "foreach"
    return "fused"


@dataclass
class FusedAdamConfig(FairseqDataclass):
    """The flags of fairseq's adam, without those that choose another implementation."""

    adam_betas: Any = flag((0.9, 0.999), "betas for Adam optimizer")
    adam_eps: float = flag(1e-8, "epsilon for Adam optimizer")
    weight_decay: float = flag(0.0, "weight decay, decoupled from the gradient")
    lr: List[float] = II("optimization.lr")  # noqa: UP006  omegaconf 2.0 knows List only


@register_optimizer("fused_adam", dataclass=FusedAdamConfig)
class FairseqAdam(adam.FairseqAdam):
    """Resumes fairseq's checkpoints, and fairseq resumes its: hence the class name, which fairseq compares."""

    def __init__(self, cfg: FusedAdamConfig, params: Iterable[Tensor]):
        FairseqOptimizer.__init__(self, cfg)
        self._optimizer = FusedAdam(params, **self.optimizer_config)
        device = self._optimizer.param_groups[0]["params"][0].device.type
        where = f"torch {torch.__version__} on {device}"
        if adam_implementation(device) == "fused":
            logger.info(f"Adam by the fused kernel of {where}")
        else:
            logger.warning(f"Adam by the foreach form of {where}, which has no fused kernel for it")
