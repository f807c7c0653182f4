"""Writing in one pass never waits for a value on the device: from a source's tokens to words on a canvas."""

import pytest
import torch
from blocks import KEYS, PAD, SOURCE, build
from graphs import HostLooks

from fairseq_diffusion.back_ends.base import Finish
from fairseq_diffusion.back_ends.dag import BEAM, SEARCHES
from fairseq_diffusion.process import noise
from fairseq_diffusion.sampler.path_beam import LOOK

READINGS = [("length", "greedy"), ("ctc", "greedy"), *(("dag", search) for search in SEARCHES)]
HOW = {"blocks": 2, "feed": "self", "fuse": "gated", "keep_schedule": "linear"}


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


def test_a_look_is_seen():
    x, index = torch.arange(4.0).view(2, 2), torch.tensor([1])
    looks = [lambda: x[0, 0].item(), lambda: bool(x.any()), lambda: x[x > 1], lambda: x.nonzero(), lambda: x.unique()]
    others = [lambda: x[index], lambda: x.index_fill(1, index, 0.0), lambda: x.index_select(0, index), lambda: x.sum()]
    for look, expected in [*((look, 1) for look in looks), *((other, 0) for other in others)]:
        with HostLooks() as found:
            look()
        assert found.count == expected
