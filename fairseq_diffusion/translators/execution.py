"""How the network is called at a step: as it is, compiled, or recorded once as a CUDA graph and played again.

The last two are made anew for every shape, so that with them batches come in a few shapes only (`buckets`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import Any, Callable

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.attention import Memory
from fairseq_diffusion.translators.batch import Source

logger = logging.getLogger(__name__)

EAGER = "eager"
SHAPES = 1024  # that may be compiled before torch goes back to eager for good; its own limit is 8
ONE_AT_A_TIME = Lock()  # compilers, and recordings, which have their memory in common
WARM_UPS = 3  # calls before a recording, in which libraries get their work spaces

Denoise = Callable[[Tensor, Tensor, Tensor, Tensor, Source], Tensor]  # as DiffusionTranslator.denoise


def compiled(denoise: Denoise, *arguments: Any) -> Denoise:
    """By torch.compile for the shapes of these `arguments` of a call, and no others."""
    mode = "reduce-overhead" if arguments[0].is_cuda else None
    run = torch.compile(denoise, dynamic=False, mode=mode)
    # a copy: on a GPU the next call writes where this one did
    return lambda *arguments: run(*arguments).clone()


def recorded(denoise: Denoise, *arguments: Any) -> Denoise:
    if not arguments[0].is_cuda:
        raise UserError("--execution cuda_graph needs an NVIDIA GPU, and this runs on a CPU; pass eager or compile")
    return Recording(denoise, *arguments)


PREPARATIONS: dict[str, Callable[..., Denoise]] = {"compile": compiled, "cuda_graph": recorded}
EXECUTIONS = (EAGER, *PREPARATIONS)


class Prepared:
    """A denoiser that is prepared at the first call with each shape; what that takes is counted apart."""

    def __init__(self, denoise: Denoise, name: str):
        self.denoise, self.name = denoise, name
        self.ready: dict[tuple[Any, ...], Denoise] = {}
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Tensor:
        """Arguments as of the denoiser."""
        x_t, source = arguments[0], arguments[-1]
        # the strides, because a null source lies otherwise in memory: compiled code depends on them
        shape = x_t.shape, *((layer.keys.shape, layer.keys.stride()) for layer in source.memory[:1])
        with ONE_AT_A_TIME, torch.cuda.device_of(x_t):  # streams and graphs are the current device's
            if shape not in self.ready:
                self._prepare(shape, arguments)
            return self.ready[shape](*arguments)

    def _prepare(self, shape: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
        from torch._dynamo import config  # takes seconds, which most runs can do without

        x_t = arguments[0]
        begun = now(x_t)
        try:
            self.ready[shape] = PREPARATIONS[self.name](self.denoise, *arguments)
            with config.patch(cache_size_limit=SHAPES, accumulated_cache_size_limit=SHAPES):
                for _ in range(WARM_UPS):  # compiled code is recorded, on a GPU, behind its first call
                    self.ready[shape](*arguments)
        except UserError:
            raise
        except Exception as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"--execution {self.name} fails here ({why}); pass --execution eager") from error
        seconds, (rows, length), (sentences, width) = now(x_t) - begun, x_t.shape[:2], arguments[-1].mask.shape
        self.seconds += seconds
        logger.info(
            f"--execution {self.name}: {seconds:.1f} s for {sentences} sentences x {rows // sentences} candidates x "
            f"{length} positions, sources of {width}"
        )


def now(like: Tensor) -> float:
    """Seconds, when the device of `like` has finished its work."""
    if like.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


@cache
def pool(device: torch.device) -> Any:
    """Memory that all recordings have in common: no two of them are played at a time."""
    return torch.cuda.graph_pool_handle()


class Recording:
    """A CUDA graph of one shape: what goes in is copied to where it reads, what comes out from where it writes."""

    def __init__(self, denoise: Denoise, x_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, source: Source):
        self.own = [at_rest(tensor) for tensor in (x_t, t, c)]
        self.kept = [at_rest(tensor) for tensor in (mask, *tensors_of(source))]
        self.loaded: Source | None = None
        mask, source = self.kept[0], with_tensors(source, self.kept[1:])
        x_t, t, c = self.own
        self.output, self.play = record(lambda: denoise(x_t, t, c, mask, source), x_t.device)

    def __call__(self, x_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, source: Source) -> Tensor:
        torch._foreach_copy_(self.own, [x_t, t, c])
        if source is not self.loaded:  # a source is read at many steps, and each has one mask of candidates
            torch._foreach_copy_(self.kept, [mask, *tensors_of(source)])
            self.loaded = source
        self.play()
        return self.output.clone()


def record(call: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], Any]]:
    """The output of `call`, and what computes it again, of whatever stands in the inputs then."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool(device)):
        output = call()
    return output, graph.replay


def at_rest(tensor: Tensor) -> Tensor:
    """A copy in the same layout, with what lies behind its last row, whose place does not change."""
    room = tensor.new_empty(max(1, *map(math.prod, zip(tensor.shape, tensor.stride()))))
    return room.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def tensors_of(source: Source) -> list[Tensor]:
    return [source.mask, source.states, *(tensor for layer in source.memory for tensor in layer)]


def with_tensors(source: Source, tensors: Sequence[Tensor]) -> Source:
    """The same with other tensors, in the order of tensors_of."""
    mask, states, *rest = tensors
    memory = [Memory(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
    return replace(source, mask=mask, states=states, memory=memory)
