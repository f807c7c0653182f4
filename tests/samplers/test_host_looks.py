"""Nothing waits for a value on the device: not a sampler's loop, and not decoding in one pass."""

from contextlib import nullcontext

import pytest
import torch
from blocks import KEYS, PAD, SOURCE, build
from gaussians import build as build_diffusion
from gaussians import encode, sources
from host_looks import HostLooks

from fairseq_diffusion.alignment.beam import CHECK_EVERY
from fairseq_diffusion.alignment.paths import BEAM, READ_BY, SEARCHES
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.loop import SAMPLERS
from fairseq_diffusion.translators.batch import Lengths
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.one_pass_decoding import OnePassOptions

READINGS = [("length", "lookahead"), ("ctc", "lookahead"), ("ctc", BEAM), *(("dag", search) for search in SEARCHES)]
HOW = {"blocks": 2, "feed": "self", "fuse": "gated", "keep_schedule": "linear"}
STEPS = 11
GAUSSIAN = [name for name in SAMPLERS if SAMPLERS[name].family == "gaussian"]


@pytest.fixture
def no_copies(monkeypatch):
    """What HostLooks does not see is an error."""
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, None)


@pytest.mark.parametrize("copy", ["uniform", "soft"])
@pytest.mark.parametrize("alignment, search", READINGS)
def test_one_pass_decoding_does_not_look(alignment, search, copy, no_copies):
    """But for beam search, every eighth step; whatever else may happen on the way."""
    model = build(**HOW, alignment=alignment, source_copy=copy).eval()
    source = model.encode(SOURCE, SOURCE.ne(PAD))
    lengths = model.lengths(source, 1, "top_k")
    if alignment == "length":
        lengths = Lengths(torch.full((3, 2), 7), torch.zeros(3, 2), 7)
    numbers = torch.arange(4 if search == "sample" else lengths.positions.shape[1])
    keys = noise.fold(KEYS[:, None], numbers).view(*lengths.positions.shape, -1)
    drop = alignment != "ctc"
    penalty = {"length_penalty": 9.0} if search in READ_BY["length_penalty"] else {}
    decoder = model.decoder_for(OnePassOptions(path_search=search, drop_repeats=drop, passes=2, **penalty))
    with HostLooks() as looks:
        decoder(source, lengths, keys)
    steps = int(SOURCE.shape[1] * model.alignment.upsample) - 2
    assert steps > 2 * CHECK_EVERY
    assert 0 < looks.count <= steps // CHECK_EVERY if search == BEAM else looks.count == 0


def decoding(device, steps=STEPS, **options):
    """Decoding of seven sentences with four candidates each, as a function without arguments."""
    translator = build_diffusion(source_drop=0.1, prediction="v")
    decoder = translator.decoder_for(DiffusionOptions(steps=steps, length_beam=2, noise_beam=2, **options))
    source = encode(translator.to(device), sources().to(device))
    lengths = Lengths(torch.full((7, 2), 9, device=device), torch.zeros(7, 2, device=device), 9)
    keys = noise.fold(torch.arange(7, device=device)[:, None, None], torch.arange(4, device=device).view(2, 2))
    return lambda: decoder(source, lengths, keys)


@pytest.mark.parametrize(
    "options", [{}, {"clamp": True, "guidance": 2.0, "prune_after": "2,5"}, {"prune_after": "1,3"}]
)
@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_sampler_does_not_look(name, options, monkeypatch):
    """On a device whose tensors have no values, so that whoever looks fails; it knows no autocast."""
    run = decoding("meta", sampler=name, steps=6, **options)  # few: this device takes a millisecond an operation
    monkeypatch.setattr(torch, "autocast", lambda *device, **how: nullcontext())
    with HostLooks() as looks:
        candidates = run()
    assert looks.count == 0 and candidates.tokens.shape == (7, 4, 9)


@pytest.mark.parametrize("prune", ["", "3,6"])
def test_the_stop_looks_every_fourth_step(prune, monkeypatch):
    """And where candidates are pruned; once, for both numbers that the host has to know."""
    looked, tolist = [], torch.Tensor.tolist
    run = decoding("cpu", sampler="ddpm", prune_after=prune, stop_stable=50)
    for name in ("numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, None)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: looked.append(x) or tolist(x))
    with HostLooks() as looks:
        run()
    assert looks.count == 0 and len(looked) == (4 if prune else 2) and STEPS - 1 < 12


def test_a_device_without_values_shows_who_looks():
    x = torch.arange(4.0, device="meta").view(2, 2)
    looks = [lambda: x[0, 0].item(), lambda: bool(x.any()), lambda: x[x > 1], lambda: x.nonzero(), lambda: x.tolist()]
    more = [lambda: x.cpu(), lambda: x.numpy(), lambda: x.to("cpu"), lambda: int(x.sum()), lambda: x.equal(x)]
    for look in looks + more:
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
