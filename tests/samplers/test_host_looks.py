"""Nothing waits for a value on the device: not a sampler's loop, and not the writing of a canvas in one pass."""

from contextlib import nullcontext

import pytest
import torch
from blocks import KEYS, PAD, SOURCE, build
from gaussians import Model, sources
from gaussians import build as build_gaussian
from graphs import HostLooks

from fairseq_diffusion.alignment.base import Finish
from fairseq_diffusion.alignment.dag import BEAM, SEARCHES
from fairseq_diffusion.alignment.path_beam import LOOK
from fairseq_diffusion.decoding.buckets import Drafts
from fairseq_diffusion.decoding.rows import Rows
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.early_exit import Leaving
from fairseq_diffusion.samplers.gaussian import SAMPLERS, steps_of
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.loop import Refinement, sample

READINGS = [("length", "greedy"), ("ctc", "greedy"), *(("dag", search) for search in SEARCHES)]
HOW = {"blocks": 2, "feed": "self", "fuse": "gated", "keep_schedule": "linear"}
STEPS = 11


@pytest.fixture
def no_copies(monkeypatch):
    """What HostLooks does not see is an error."""
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, None)


@pytest.mark.parametrize("copy", ["uniform", "soft"])
@pytest.mark.parametrize("kind, search", READINGS)
def test_writing_does_not_look(kind, search, copy, no_copies):
    """But for beam search, every eighth step; whatever else may happen on the way."""
    model = build(**HOW, back_end=kind, source_copy=copy).eval()
    lengths = (torch.full((3, 2), 7), 7) if kind == "length" else None
    keys = noise.fold(KEYS[:, None], torch.arange(4))
    finish = Finish(search, length_penalty=9.0, drop_repeats=kind != "ctc", keys=keys)
    with HostLooks() as looks:
        model.write(model.encode(SOURCE, SOURCE.ne(PAD)), lengths, finish, passes=2)
    steps = int(SOURCE.shape[1] * model.back_end.upsample) - 2
    assert steps > 2 * LOOK
    assert 0 < looks.count <= steps // LOOK if search == BEAM else looks.count == 0


def loop(name, device, ways=(), prune=(), stable=0):
    """A sampler's loop over seven sentences with four candidates each, as a function without arguments."""
    translator = build_gaussian(source_drop=0.1, prediction="v")
    grid = make_grid(translator.schedule, STEPS, told=SAMPLERS[name].told)
    source = Model(translator.to(device)).encode(sources().to(device))
    lengths, likely = torch.full((7, 2), 9, device=device), torch.zeros(7, 2, device=device)
    drafts = Drafts(source, torch.arange(7, device=device), lengths, likely, 9)
    rows = Rows.of(translator, translator.denoise, drafts, 2, STEPS)
    refine = Refinement(2.0 if "guidance" in ways else 1.0, translator.state.clamp if "clamp" in ways else None)
    leaving = Leaving(rows.mask, translator.state.round, prune, stable) if prune or stable else None
    steps = steps_of(SAMPLERS[name], grid)
    return lambda: sample(rows, grid, steps, refine, leaving)


@pytest.mark.parametrize("ways, prune", [((), ()), (("guidance",), ()), (("clamp", "guidance"), (2, 5)), ((), (1, 3))])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_does_not_look(name, ways, prune, monkeypatch):
    """On a device whose tensors have no values, so that whoever looks fails; it knows no autocast."""
    run = loop(name, "meta", ways, prune)
    monkeypatch.setattr(torch, "autocast", lambda *device, **how: nullcontext())
    with HostLooks() as looks:
        result = run()
    assert looks.count == 0 and result.x_0.shape == (7, 4, 9, 6) and result.left == 4 // 2 ** len(prune)


@pytest.mark.parametrize("prune", [(), (3, 6)])
def test_the_stop_looks_every_fourth_step(prune, monkeypatch):
    """And where candidates are pruned; once, for both numbers that the host has to know."""
    looked, tolist = [], torch.Tensor.tolist
    run = loop("ddpm", "cpu", prune=prune, stable=50)
    for name in ("numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, None)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: looked.append(x) or tolist(x))
    with HostLooks() as looks:
        run()
    assert looks.count == 0 and len(looked) == len({4, 8, *prune}) and STEPS - 1 < 12


def test_a_device_without_values_shows_who_looks():
    x = torch.arange(4.0, device="meta").view(2, 2)
    looks = [lambda: x[0, 0].item(), lambda: bool(x.any()), lambda: x[x > 1], lambda: x.nonzero(), lambda: x.tolist()]
    for look in [
        *looks,
        lambda: x.cpu(),
        lambda: x.numpy(),
        lambda: x.to("cpu"),
        lambda: int(x.sum()),
        lambda: x.equal(x),
    ]:
        with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
            look()


def test_a_look_is_seen():
    x, index = torch.arange(4.0).view(2, 2), torch.tensor([1])
    looks = [lambda: x[0, 0].item(), lambda: bool(x.any()), lambda: x[x > 1], lambda: x.nonzero(), lambda: x.unique()]
    others = [lambda: x[index], lambda: x.index_fill(1, index, 0.0), lambda: x.index_select(0, index), lambda: x.sum()]
    for look, expected in [*((look, 1) for look in looks), *((other, 0) for other in others)]:
        with HostLooks() as found:
            look()
        assert found.count == expected
