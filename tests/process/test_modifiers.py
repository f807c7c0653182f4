import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import times
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
    (32_000, 64): (1.024, 0.711, 0.818),
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
        modifier.update(table, CURVES["sigma_t"])
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


SIGMAS = times([0.0, 1e-9, 0.121, 0.5, 0.9, 1 - 1e-9, 1.0])


@pytest.mark.parametrize("name", MODIFIERS)
def test_without_a_factor_the_level_is_the_curves(name):
    level = MODIFIERS[name]().level(SIGMAS, SIGMAS)
    assert torch.allclose(level.sigma, SIGMAS, atol=1e-15, rtol=1e-15)
    assert torch.allclose(level.alpha, ((1 - SIGMAS) * (1 + SIGMAS)).sqrt(), atol=1e-15, rtol=1e-15)


def test_a_factor_multiplies_the_noise_alone():
    plain, level = MODIFIERS["none"]().level(SIGMAS, SIGMAS), MODIFIERS["factor"](4.0).level(SIGMAS, SIGMAS)
    assert torch.equal(level.alpha, plain.alpha) and torch.equal(level.sigma, 4 * plain.sigma)


@pytest.mark.parametrize("factor", [0.5, 3.5, 4.0])
def test_variance_preserving_factor_is_the_closed_form_of_abar(factor):
    level = MODIFIERS["factor_vp"](factor).level(SIGMAS, SIGMAS)
    abar = (1 - SIGMAS) * (1 + SIGMAS)
    assert torch.allclose(level.alpha.square(), abar / (factor**2 - (factor**2 - 1) * abar), rtol=1e-12, atol=0)
    assert torch.allclose(level.alpha.square() + level.sigma.square(), torch.ones_like(SIGMAS), rtol=0, atol=1e-15)
    assert level.sigma[[0, -1]].tolist() == [0, 1] and level.alpha[[0, -1]].tolist() == [1, 0]


@pytest.mark.parametrize("name", MODIFIERS)
def test_a_factor_given_replaces_the_one_trained_with(name):
    trained = MODIFIERS[name](4.0)
    for factor in (1.0, 2.0):
        given, other = trained.level(SIGMAS, SIGMAS, factor), MODIFIERS[name](factor).level(SIGMAS, SIGMAS)
        assert torch.equal(given.alpha, other.alpha) and torch.equal(given.sigma, other.sigma)
    assert not torch.equal(trained.level(SIGMAS, SIGMAS).sigma, trained.level(SIGMAS, SIGMAS, 1.0).sigma)


@pytest.mark.parametrize("name", ["factor", "factor_vp"])
def test_half_log_snr_falls_by_log_f(name):
    plain, level = MODIFIERS["none"]().level(SIGMAS, SIGMAS), MODIFIERS[name](3.0).level(SIGMAS, SIGMAS)
    assert level.half_log_snr.dtype == torch.float64
    assert level.half_log_snr[[0, -1]].tolist() == [math.inf, -math.inf]
    assert plain.half_log_snr[3].item() == pytest.approx(math.log(0.75) / 2 - math.log(0.5), rel=1e-14)
    fall = (plain.half_log_snr - level.half_log_snr)[1:-1]
    assert torch.allclose(fall, torch.full_like(fall, math.log(3)), rtol=1e-13)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_factor_that_is_none(factor):
    for name in MODIFIERS:
        with pytest.raises(UserError, match="noise factor is .*above 0"):
            MODIFIERS[name](factor)
        with pytest.raises(UserError, match="noise factor is .*above 0"):
            MODIFIERS[name]().level(SIGMAS, SIGMAS, factor)
