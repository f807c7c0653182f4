import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.nearest import spread
from fairseq_diffusion.process.schedule import Schedule


def random_table(V, D):
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(V, D, generator=generator), dim=-1) * D**0.5


def brute_force_spread(table):
    distance = (table[:, None].double() - table[None].double()).square().sum(-1)
    distance.fill_diagonal_(torch.inf)
    return distance.min(-1).values.sum() / table.numel()


# V, D -> delta^2, sigma_min of clip and of clip_plus_one for random normalised embeddings
REFERENCE = {
    (10_000, 16): (0.405, 0.537, 0.764),
    (40_000, 16): (0.331, 0.499, 0.756),
    (32_000, 64): (1.024, 0.711, 0.818),
    (40_000, 64): (1.014, 0.710, 0.817),
    (40_000, 128): (1.281, 0.749, 0.834),
}


@pytest.mark.parametrize(
    "V, D", [(10_000, 16), *(pytest.param(*k, marks=pytest.mark.slow) for k in list(REFERENCE)[1:])]
)
def test_sigma_min_of_random_embeddings(V, D):
    delta_2, plain, plus_one = REFERENCE[V, D]
    table = random_table(V, D)
    assert spread(table).item() == pytest.approx(delta_2, rel=0.01)
    for name, sigma_min in (("clip", plain), ("clip_plus_one", plus_one)):
        modifier = MODIFIERS[name]()
        modifier.update(table)
        assert modifier.sigma_min.item() == pytest.approx(sigma_min, rel=0.01)


@pytest.mark.parametrize("chunk_bytes", [1, 4000, 2**26])
def test_chunks_equal_brute_force(chunk_bytes, monkeypatch):
    monkeypatch.setattr("fairseq_diffusion.process.nearest.CHUNK_BYTES", chunk_bytes)
    table = random_table(257, 8)
    assert spread(table).item() == pytest.approx(brute_force_spread(table).item(), rel=1e-6)


def test_close_rows_do_not_cancel():
    table = random_table(64, 16)
    table[1] = table[0] + 1e-4 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    assert spread(table).item() == pytest.approx(brute_force_spread(table).item(), rel=1e-6)


@pytest.mark.slow
def test_memory_at_forty_thousand_words():
    code = (
        "import resource, torch; from fairseq_diffusion.process.nearest import spread;"
        "table = torch.nn.functional.normalize(torch.randn(40_000, 64), dim=-1); spread(table[:2000]);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; spread(table);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    kilobytes = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert kilobytes < 300 * 1024


def test_clipping_bounds_the_times_trained_on():
    schedule = Schedule("sqrt", "clip")
    schedule.update(random_table(500, 8))
    t = schedule.training_time(torch.linspace(0, 1, 101))
    sigma = schedule.level(t).sigma
    assert sigma[0].item() == pytest.approx(schedule.modifier.sigma_min.item(), rel=1e-9)
    assert sigma[-1].item() == 1 and (t.diff() > 0).all()


def test_without_a_modifier_all_times_are_trained_on():
    u = torch.linspace(0, 1, 5).double()
    schedule = Schedule("sigma_t", "none")
    schedule.update(random_table(10, 4))
    assert torch.equal(schedule.training_time(u), u)


def test_sigma_min_is_in_the_checkpoint_and_keeps_its_digits_in_half_precision():
    schedule = Schedule("sigma_t", "clip")
    schedule.update(random_table(100, 8))
    exact = schedule.modifier.sigma_min.item()
    fresh = Schedule("sigma_t", "clip")
    fresh.load_state_dict(schedule.half().bfloat16().state_dict())
    assert fresh.modifier.sigma_min.item() == exact
