"""Every sampler against closed forms and an oracle denoiser."""

import math
from dataclasses import dataclass, field
from typing import Callable

import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.grid import Grid, make_grid
from fairseq_diffusion.samplers.loop import SAMPLERS, Refinement, sample
from fairseq_diffusion.states.embedding import EmbeddingState

PLAIN = Refinement()
GAUSSIAN = [name for name in SAMPLERS if SAMPLERS[name].family == "gaussian"]
KEYS = noise.fold(torch.arange(2)[:, None], 5, torch.arange(3))


def keys_of_steps(keys):
    """[M, S, K]: those of the random numbers of up to 400 steps."""
    return noise.fold(keys, torch.arange(400)[:, None, None])


@dataclass
class Toy:
    """Two sentences with three candidates of three positions; the network is a function (x_t, t, c) -> x_0-hat."""

    network: Callable
    without_source: Callable | None = None
    keys: torch.Tensor = field(default_factory=lambda: keys_of_steps(KEYS))
    mask: torch.Tensor = field(default_factory=lambda: torch.ones(2, 3, 3).bool())
    state: EmbeddingState = field(default_factory=lambda: EmbeddingState(5, 4))

    def settle(self, estimate):
        return estimate

    def denoise(self, x_t, t, c):
        return self.network(x_t, t, c)

    def denoise_without_source(self, x_t, t):
        return self.without_source(x_t, t)


def run(name, network, steps=20, conditioning="usual", schedule="sigma_t", refine=PLAIN, eta=None, **kwargs):
    sampler = SAMPLERS[name]
    levels = sampler.conditioning if conditioning == "usual" else conditioning
    grid = make_grid(Schedule(schedule), steps, conditioning=levels)
    batch = network if isinstance(network, Toy) else Toy(network)
    return sample(batch, grid, sampler.steps(grid, eta), refine, **kwargs)


def muddled(x_t, t, c):
    """Some smooth function of all its arguments."""
    return torch.tanh(x_t + 0.3 * c) * (1 - t / 2)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("schedule", CURVES)
@pytest.mark.parametrize("name", GAUSSIAN)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_an_oracle_is_believed(name, schedule, steps):
    """The estimate that counts is the last one, whatever the steps before it."""
    truth = torch.randn(2, 3, 3, 4)
    result = run(name, lambda x_t, t, c: truth, steps, schedule=schedule)
    assert torch.equal(result.estimate, truth)
    assert result.calls.tolist() == [[steps] * 3] * 2 and result.alive.all()


@pytest.mark.parametrize("schedule", CURVES)
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "ddpm", "fixed_t"])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_under_an_oracle_the_state_keeps_to_the_forward_process(name, schedule, factor):
    """x_t = alpha truth + sigma eps at every step, with one eps from first to last where nothing is drawn anew."""
    sampler, truth, states = SAMPLERS[name], noise.normal(torch.tensor([[8, 9]]), 2000, 2), []
    grid = make_grid(Schedule(schedule, "factor", factor), 6, conditioning=sampler.conditioning)
    network = lambda x_t, t, c: states.append(x_t) or truth  # noqa: E731
    keys, mask = keys_of_steps(torch.tensor([[8, 9]])), torch.ones(1, 2, 2000).bool()
    sample(Toy(network, keys=keys, mask=mask, state=EmbeddingState(5, 2)), grid, sampler.steps(grid))
    for i, x_t in enumerate(states[1:], start=1):
        eps = (x_t - grid.level.alpha[i] * truth) / grid.level.sigma[i]
        if sampler.eta:
            assert eps.mean().abs() < 0.05 and eps.std().item() == pytest.approx(1, abs=0.05)
        else:
            start = (states[0] - grid.level.alpha[0] * truth) / grid.level.sigma[0]
            torch.testing.assert_close(eps, start, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_an_oracle_leads_the_state_to_the_truth(name):
    """Not just the last estimate: after the last step x is the truth, up to the noise of the final time."""
    truth, states = torch.randn(2, 3, 3, 4), []

    def oracle(x_t, t, c):
        states.append(x_t)
        return truth

    run(name, oracle, steps=400, conditioning=None)
    assert (states[-1] - truth).abs().max() < 0.02


@pytest.mark.usefixtures("device")
def test_cedi_with_equal_grids_is_ddim_bit_for_bit():
    equal = make_grid(Schedule("sigma_t"), 20, conditioning=(1.0, 1e-3))
    assert torch.equal(equal.t, equal.conditioning_t)
    assert SAMPLERS["cedi"].steps(equal) == SAMPLERS["ddim"].steps(equal)
    ddim, cedi = run("ddim", muddled), run("cedi", muddled, conditioning=(1.0, 1e-3))
    assert torch.equal(cedi.estimate, ddim.estimate)
    assert not torch.equal(run("cedi", muddled).estimate, ddim.estimate)


@pytest.mark.usefixtures("device")
def test_cedi_follows_the_paper_step_by_step():
    x, c = noise.normal(Toy(muddled).keys[0], 3, 4).double(), torch.zeros(2, 3, 3, 4).double()
    t, tau = [torch.linspace(1, end, 21).double() for end in (1e-3, 0.99)]
    alpha = lambda s: math.sqrt((1 - s) * (1 + s))  # noqa: E731
    for i in range(20):
        x_0 = muddled(x, tau[i], c)
        eps = (x - alpha(tau[i]) * x_0) / tau[i]
        x, c = alpha(t[i + 1]) * x_0 + t[i + 1] * eps, x_0
    assert torch.allclose(run("cedi", muddled).estimate.double(), x_0, atol=1e-5)


def one_step(name, schedule, t, s, **options):
    """The numbers of one step from t to s."""
    t, level = times([t, s]), schedule.level(times([t, s]))
    return SAMPLERS[name].steps(Grid(t, t, level, level), **options)[0]


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_ddpm_draws_from_the_posterior(factor):
    """Bayes' rule by hand: q(x_s | x_t, x_0) is the product of q(x_s | x_0) and q(x_t | x_s), both Gaussian."""
    s, t, x_t, x_0 = 0.55, 0.7, 0.8, -0.4
    schedule = Schedule("sigma_t", "factor", factor)
    now, next_ = schedule.level(times(t)), schedule.level(times(s))
    ratio, sigma_s = (now.alpha / next_.alpha).item(), next_.sigma.item()
    forward = now.sigma.item() ** 2 - ratio**2 * sigma_s**2
    variance = 1 / (1 / sigma_s**2 + ratio**2 / forward)
    mean = variance * (next_.alpha.item() * x_0 / sigma_s**2 + ratio * x_t / forward)
    step = one_step("ddpm", schedule, t, s)
    assert step.x_t * x_t + step.x_0 * x_0 == pytest.approx(mean, rel=1e-12)
    assert step.noise**2 == pytest.approx(variance, rel=1e-12)


def test_ddpm_is_the_released_form_of_a_respaced_table():
    """c_1, c_2 and the variance from betas recomputed between twenty of 2000 steps; the noise times the factor."""
    schedule = Schedule("sqrt_offset", "factor", 4.0, steps=2000)
    factor = 1.5
    grid = make_grid(schedule, 20, spacing="respaced", factor=factor)
    abar = schedule.level(grid.t, 1.0).alpha.square()
    for k, step in enumerate(SAMPLERS["ddpm"].steps(grid)[:-1]):  # the last goes to clean data
        beta = 1 - abar[k] / abar[k + 1]
        c_1 = beta * abar[k + 1].sqrt() / (1 - abar[k])
        c_2 = (1 - abar[k + 1]) * (1 - beta).sqrt() / (1 - abar[k])
        variance = beta * (1 - abar[k + 1]) / (1 - abar[k])
        assert step.x_0 == pytest.approx(c_1.item(), rel=1e-9)
        assert step.x_t == pytest.approx(c_2.item(), rel=1e-9)
        assert step.noise == pytest.approx(factor * variance.sqrt().item(), rel=1e-9)


def test_ddpm_keeps_the_marginal():
    """x_t ~ q(x_t | x_0) goes to x_s ~ q(x_s | x_0), whatever eta."""
    schedule = Schedule("cosine")
    now, next_ = schedule.level(times([[0.8]])), schedule.level(times([[0.5]]))
    x_0 = torch.full((1, 100_000, 1), 0.7)
    x_t = now.mix(x_0, noise.normal(torch.tensor([1]), 100_000, 1))
    for eta in (0.0, 0.5, 1.0):
        step = one_step("ddpm", schedule, 0.8, 0.5, eta=eta)
        x_s = step.apply(x_t, x_0, x_0, noise.normal(torch.tensor([2]), 100_000, 1))
        assert x_s.mean().item() == pytest.approx(next_.alpha.item() * 0.7, abs=0.02)
        assert x_s.std().item() == pytest.approx(next_.sigma.item(), abs=0.02)


@pytest.mark.usefixtures("device")
def test_eta_goes_from_ddim_to_ddpm():
    ddim, ddpm = (run(name, muddled).estimate for name in ("ddim", "ddpm"))
    assert torch.equal(run("ddpm", muddled, eta=0.0).estimate, ddim)
    assert torch.equal(run("ddim", muddled, eta=1.0).estimate, ddpm)
    half = one_step("ddpm", Schedule(), 0.7, 0.5, eta=0.5)
    assert half.noise == pytest.approx(0.5 * one_step("ddpm", Schedule(), 0.7, 0.5).noise)


def test_deterministic_rule_keeps_the_noise_it_finds():
    schedule = Schedule("sigma_t")
    now, next_ = schedule.level(times([[0.9]])), schedule.level(times([[0.2]]))
    x_0, eps = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    x_s = one_step("ddim", schedule, 0.9, 0.2).apply(now.mix(x_0, eps), x_0, x_0, None)
    assert torch.allclose(x_s, next_.mix(x_0, eps), atol=1e-6)


def test_fixed_t_conditions_on_one_time_and_walks_as_ddpm():
    seen = []

    def network(x_t, t, c):
        seen.append(t.item())
        return muddled(x_t, t, c)

    fixed = run("fixed_t", network, conditioning=(0.8, 0.8))
    assert seen == pytest.approx([0.8] * 20)
    ddpm = run("ddpm", lambda x_t, t, c: muddled(x_t, torch.tensor(seen[0]), c))
    assert torch.equal(fixed.estimate, ddpm.estimate)


def test_a_noise_factor_scales_the_state_and_not_the_estimate():
    """The estimate's share does not change; the first noise and the fresh noise are F times as large."""
    schedule = Schedule("sqrt_offset", "factor", 4.0, steps=2000)
    one, four = (make_grid(schedule, 20, spacing="respaced", factor=factor) for factor in (1.0, 4.0))
    for a, b in zip(SAMPLERS["ddpm"].steps(one), SAMPLERS["ddpm"].steps(four)):
        assert (a.x_t, a.x_0, 4 * a.noise) == pytest.approx((b.x_t, b.x_0, b.noise))
    assert four.level.sigma[0] == 4 * one.level.sigma[0]
    assert torch.equal(one.conditioning_t, four.conditioning_t)


# -- second order, against the exact flow of a mixture of Gaussians


MEANS, STDS, WEIGHTS = times([-1.5, 0.4, 1.2]), times([0.3, 0.2, 0.5]), times([0.3, 0.5, 0.2])


def mixture_estimate(x_t, level):
    """E[x_0 | x_t] when x_0 is a mixture of Gaussians, in closed form, fp64."""
    variance = (level.alpha * STDS).square() + level.sigma.square()
    z = x_t - level.alpha * MEANS
    p = (WEIGHTS.log() - z.square() / (2 * variance) - variance.log() / 2).softmax(-1)
    return (p * (MEANS + level.alpha * STDS.square() / variance * z)).sum(-1, keepdim=True)


def flow(name, steps, spacing="log_snr"):
    """Where the steps take 64 points from pure noise to t = 0.05, [64, 1]."""
    grid = make_grid(Schedule("linear"), steps, spacing=spacing, final_time=0.05)
    x = torch.linspace(-2, 2, 64, dtype=torch.float64)[:, None]
    previous = torch.zeros_like(x)
    for i, step in enumerate(SAMPLERS[name].steps(grid)):
        x_0 = mixture_estimate(x, grid.level[i])
        x, previous = step.apply(x, x_0, previous, None), x_0
    return x


@pytest.fixture(scope="module")
def exact():
    return flow("ddim", 40_000)


def error(name, steps, exact, **kwargs):
    return (flow(name, steps, **kwargs) - exact).square().mean().sqrt().item()


def test_dpmpp_is_of_second_order_and_ddim_of_first(exact):
    orders = {}
    for name in ("ddim", "dpmpp_2m"):
        errors = [error(name, steps, exact) for steps in (40, 80, 160)]
        orders[name] = [math.log2(a / b) for a, b in zip(errors, errors[1:])]
    assert orders["ddim"] == pytest.approx([1, 1], abs=0.15)
    assert orders["dpmpp_2m"] == pytest.approx([2, 2], abs=0.25)


def test_dpmpp_needs_few_steps_for_what_ddim_reaches_in_a_hundred(exact):
    assert error("dpmpp_2m", 20, exact) < error("ddim", 100, exact)


@pytest.mark.parametrize("spacing", ["log_snr", "time", "sigma"])
def test_dpmpp_is_closer_than_ddim_at_the_same_steps(exact, spacing):
    assert error("dpmpp_2m", 40, exact, spacing=spacing) < error("ddim", 40, exact, spacing=spacing)


def test_dpmpp_starts_in_pure_noise_and_ends_in_clean_data():
    """Infinitely long steps are of first order."""
    grid = make_grid(Schedule("sqrt_offset", steps=2000), 6, spacing="respaced")
    ddim, dpmpp = (SAMPLERS[name].steps(grid) for name in ("ddim", "dpmpp_2m"))
    assert dpmpp[0] == ddim[0] and dpmpp[-1] == ddim[-1]
    assert all(math.isfinite(value) for step in dpmpp for value in step)
    assert [bool(step.previous) for step in dpmpp] == [False, True, True, True, True, False]
    pure = SAMPLERS["dpmpp_2m"].steps(make_grid(Schedule("sigma_t"), 4))
    assert [bool(step.previous) for step in pure] == [False, False, True, True]


def test_dpmpp_is_the_formula(exact):
    """z_s = (sigma_s / sigma_t) z_t - alpha_s (exp(-h) - 1) D, D = (1 + 1 / (2 r)) z_0 - 1 / (2 r) z_0 before."""
    grid = make_grid(Schedule("linear"), 9)
    alpha, sigma = grid.level.alpha, grid.level.sigma
    h = (alpha / sigma).log().diff()
    for i, step in enumerate(SAMPLERS["dpmpp_2m"].steps(grid)):
        half = h[i] / h[i - 1] / 2 if i else times(0.0)
        share = -alpha[i + 1] * torch.expm1(-h[i])
        expected = ((sigma[i + 1] / sigma[i]), share * (1 + half), -share * half, times(0.0))
        assert step == pytest.approx([value.item() for value in expected], rel=1e-9, abs=1e-12)


# -- options on score and estimate


def test_temperature_divides_the_score():
    """A tempered step is many small Euler steps of dy/dtau = (y - x_0) / (tau temperature), y = x / alpha."""
    schedule, x_t, x_0, temperature = Schedule("linear"), 0.9, -0.3, 0.8
    t, s = schedule.level(times(0.7)), schedule.level(times(0.4))
    tau = torch.linspace((t.sigma / t.alpha).item(), (s.sigma / s.alpha).item(), 200_001, dtype=torch.float64)
    y = x_t / t.alpha.item() - x_0
    y = y * (1 + tau.diff() / (tau[:-1] * temperature)).prod().item() + x_0
    step = one_step("ddim", schedule, 0.7, 0.4, temperature=temperature)
    assert step.x_t * x_t + step.x_0 * x_0 == pytest.approx(s.alpha.item() * y, rel=1e-4)
    plain = one_step("ddim", schedule, 0.7, 0.4)
    assert one_step("ddim", schedule, 0.7, 0.4, temperature=1.0) == plain
    assert step.x_t < plain.x_t


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("name", GAUSSIAN)
def test_tempered_samplers_believe_an_oracle(name, temperature):
    truth, sampler = torch.randn(2, 3, 3, 4), SAMPLERS[name]
    for schedule in CURVES:
        grid = make_grid(Schedule(schedule), 7, conditioning=sampler.conditioning)
        steps = sampler.steps(grid, temperature=temperature)
        assert all(math.isfinite(value) for step in steps for value in step)
        assert torch.equal(sample(Toy(lambda x_t, t, c: truth), grid, steps).estimate, truth)


@pytest.mark.usefixtures("device")
def test_guidance_leads_away_from_the_estimate_without_a_source():
    batch = Toy(lambda x_t, t, c: torch.full_like(x_t, 2.0), lambda x_t, t: torch.full_like(x_t, 0.5))
    result = run("ddim", batch, 3, refine=Refinement(guidance=4.0))
    assert torch.allclose(result.estimate, torch.tensor(0.5 + 4 * 1.5))
    assert (result.calls == 6).all()
    assert torch.equal(run("ddim", batch, 3).estimate, torch.full((2, 3, 3, 4), 2.0))


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp_2m"])
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_each_position_steps_by_its_own_levels(name, temperature):
    """As if all had them; those behind the last with its."""
    grid = make_grid(Schedule("cosine"), 5)
    exponent = torch.tensor([1.0, 2.0])  # of the two positions that have levels of their own
    each = Grid(grid.t, grid.t, *[Level.variance_preserving(grid.level.sigma[:, None] ** exponent)] * 2)
    alone = [Grid(grid.t, grid.t, *[Level.variance_preserving(grid.level.sigma**e)] * 2) for e in (1, 2)]
    x = Toy(muddled)
    found = sample(x, each, SAMPLERS[name].steps(each, temperature=temperature)).s
    first, second = (sample(x, g, SAMPLERS[name].steps(g, temperature=temperature)).s for g in alone)
    torch.testing.assert_close(found[..., :1, :], first[..., :1, :])
    torch.testing.assert_close(found[..., 1:, :], second[..., 1:, :])
    assert not torch.allclose(first[..., 1:, :], second[..., 1:, :])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_where_words_are_expected_the_mean_of_their_vectors_is_stepped_with_and_conditioned_on(guidance):
    """Guidance acts on the means; words are read from what the network says, guided in the same way."""
    state, conditions = EmbeddingState(5, 4, init_std=1.0, expects=True), []

    def network(x_t, t, c):
        conditions.append(c)
        return muddled(x_t, t, c)

    batch = Toy(network, lambda x_t, t: x_t / 3, state=state)
    result = run("dpmpp_2m", batch, 3, refine=Refinement(guidance))
    grid = make_grid(Schedule("sigma_t"), 3)
    x, c, means = state.prior(batch.keys[0], batch.mask, grid.level[0]), torch.zeros(2, 3, 3, 4), []
    for i, (step, t) in enumerate(zip(SAMPLERS["dpmpp_2m"].steps(grid), grid.t.float())):
        assert torch.equal(conditions[i], c)
        o, u = muddled(x, t, c), x / 3
        mean = torch.lerp(state.expected(u), state.expected(o), guidance)
        x, c = step.apply(x, mean, means[-1] if means else mean, None), mean
        means.append(mean)
    torch.testing.assert_close(result.estimate, torch.lerp(u, o, guidance))


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp_2m"])
def test_noise_around_a_vector_is_noise_around_0_of_what_is_shifted_by_it(name):
    state = EmbeddingState(5, 4, soft_absorb=0.5)
    c = state.center.detach()
    found = run(name, Toy(muddled, state=state), 5)
    shifted = run(
        name, Toy(lambda x_t, t, condition: muddled(x_t + c, t, condition + c * bool(condition.any())) - c), 5
    )
    torch.testing.assert_close(found.estimate, shifted.estimate + c)
    torch.testing.assert_close(found.s, shifted.s + c)


def test_each_estimate_is_clamped():
    conditions = []

    def network(x_t, t, c):
        conditions.append(c)
        return muddled(x_t, t, c)

    result = run("ddim", network, 4, refine=Refinement(clamp=torch.round))
    assert torch.equal(result.estimate, result.estimate.round())
    assert all(torch.equal(c, c.round()) for c in conditions)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_seeds(name):
    assert torch.equal(run(name, muddled).estimate, run(name, muddled).estimate)


@pytest.mark.usefixtures("device")
def test_the_loop_shows_each_estimate_and_conditions_on_the_last():
    seen, conditions = [], []

    def denoise(x_t, t, c):
        conditions.append(c)
        return muddled(x_t, t, c)

    result = run("ddim", denoise, steps=4, on_step=lambda rows, x_t, x_0: seen.append(x_0))
    assert len(seen) == 4
    assert torch.equal(seen[-1], result.estimate)
    assert conditions[0].abs().sum() == 0
    assert all(torch.equal(c, x_0) for c, x_0 in zip(conditions[1:], seen))


def test_conditioning_times_stay_distinct_under_bf16_autocast():
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        run("cedi", lambda x_t, t, c: seen.append(t.item()) or c)
    assert len(set(seen)) == 20
    assert seen[0] == 1 and seen[-1] == pytest.approx(0.99 + 0.01 / 20, abs=1e-6)


@pytest.mark.parametrize(
    "sampler, options, words",
    [
        ("ddpm", {"eta": 1.5}, "--eta is 1.5"),
        ("dpmpp_2m", {"eta": 0.5}, "second order"),
        ("ddim", {"temperature": 0.0}, "--temperature is 0"),
    ],
)
def test_senseless_options(sampler, options, words):
    with pytest.raises(UserError, match=words):
        SAMPLERS[sampler].steps(make_grid(Schedule(), 3), **options)


def test_unknown_sampler_lists_the_choices():
    with pytest.raises(UserError, match=", ".join(SAMPLERS)):
        SAMPLERS["heun"]
