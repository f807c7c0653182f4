"""Losses of words: the bound by brute force, its rate, and a batch's loss written out."""

from types import SimpleNamespace

import pytest
import torch
from gaussians import BOS, EOS, PAD, WORDS, build, encode
from token_batches import DRAWN, TOKENS, V, batch, kernel_of, matrix

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.objective import token_bound
from fairseq_diffusion.objective.terms import TERMS
from fairseq_diffusion.objective.token_bound import Rows, divergence
from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TIME_SAMPLERS
from fairseq_diffusion.process.token_kernel import TokenKernel

MASK = WORDS


@pytest.mark.parametrize("curve", [name for name in CURVES if name != "sqrt_offset"])  # which has a corner at its end
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_rate_is_the_slope_of_the_hidden_share_over_that_share(curve, factor):
    schedule = Schedule(curve, "factor_vp", factor)
    t, h = torch.linspace(0.05, 0.95, 7).double()[:, None], 1e-5
    with torch.no_grad():
        above, here, below = (schedule.level(x).sigma.square() for x in (t + h, t, t - h))
        torch.testing.assert_close(schedule.reveal_rate(t), (above - below) / (2 * h) / here, rtol=1e-6, atol=1e-9)


def test_log_linear_words_are_revealed_at_the_rate_1_over_t():
    t = torch.tensor([[1e-6], [0.3], [1.0]]).double()
    torch.testing.assert_close(Schedule("log_linear").reveal_rate(t), 1 / t)


@pytest.mark.parametrize("curve", ["log_linear", "cosine"])
def test_in_steps_the_mean_is_the_sum_of_divergences(curve):
    """sum_t KL(q(y_s | y_t, y_0) || sum_y p(y) q(y_s | y_t, y)), from matrices: what the term adds up to over all t."""
    T, y_0, p = 12, 1, torch.tensor([0.2, 0.7, 0.1]).double()
    schedule, kernel, hidden = Schedule(curve, steps=T), TokenKernel(1.0, torch.tensor([1, 1, 1, 0]).bool(), 3), 3
    a = schedule.level(torch.arange(T + 1) / T).alpha.square()

    def back(y, a_s, a_t):
        """q(. | y_t hidden, y_0 = y)."""
        m_s, step = kernel.until(a_s).hidden, kernel.between(a_s, a_t)
        joint = torch.zeros(4).double()
        joint[y], joint[hidden] = a_s * step.hidden, m_s
        return joint / joint.sum()

    divergences, terms = [], []
    for i in range(1, T + 1):
        mixture = sum(p[y] * back(y, a[i - 1], a[i]) for y in range(3))
        posterior = back(y_0, a[i - 1], a[i])
        kl = torch.where(posterior > 0, posterior * (posterior / mixture).log(), 0.0).sum()
        divergences.append((1 - a[i]) * kl)
        rate = schedule.reveal_rate(torch.tensor([[i / T]]))[0, 0]
        terms.append((1 - a[i]) * rate * -p[y_0].log() / T)
    torch.testing.assert_close(torch.stack(terms), torch.stack(divergences))


@pytest.mark.parametrize("objective, share", [("elbo", 1.0), ("corrupted", 1.0), ("corrupted", 0.3), ("anchor", 1.0)])
def test_a_batchs_loss_written_out(objective, share):
    translator = build(**TOKENS, objective=objective, mask_share=share, time_sampler="stratified", time_min=0.01)
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    losses = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0)
    u = 0.01 + 0.99 * TIME_SAMPLERS["stratified"]()(noise.fold(keys, Stream.TIME))[0]
    encoded, total, words = encode(translator, source), 0.0, 0
    for b, t in enumerate(u.tolist()):
        n = int(target[b].ne(PAD).sum())
        key = noise.fold(keys[b : b + 1], Stream.STATE)
        kept, what = noise.uniform(key, n)[0], noise.uniform(noise.fold(key, 1), n)[0]
        s_t = target[b, :n].clone()
        for i in range(1, n - 1):
            if kept[i] >= 1 - t:
                s_t[i] = MASK if what[i] < share else 4 + int((what[i] - share) / (1 - share) * (WORDS - 4))
        one = encoded.select(torch.tensor([b]))
        x = translator.denoise(s_t[None], torch.tensor([t]), None, torch.ones(1, n).bool(), one)[0]
        nll = -(x @ translator.state.weight[:WORDS].T).log_softmax(-1)
        for i in range(1, n - 1):
            words += 1
            if kept[i] >= 1 - t or objective == "anchor":
                total += float(nll[i, target[b, i]]) * (1 / t if objective == "elbo" else 1.0)
    mean = losses.terms[objective].sum() / losses.sample_size
    assert float(mean) == pytest.approx(total / words, rel=1e-4)


def test_noise_that_leaves_a_word_as_it_is_has_a_loss_too():
    """Else a word that is seen could be taken for one that is not the answer."""
    translator = build(**TOKENS, objective="corrupted", mask_share=0.0)
    state, keys = translator.state, torch.arange(400)
    target = torch.tensor([BOS, 5, 6, EOS]).expand(400, 4)
    mask, level = torch.ones_like(target).bool(), translator.schedule.level(torch.full((400, 1), 0.5))
    noised, s_t = state.noised(level, keys, mask), state.corrupt(target, level, keys, mask)
    same = noised & (s_t == target)
    assert same.any() and not (~noised & (s_t != target)).any()
    assert abs(float(noised[:, 1:3].double().mean()) - 0.5) < 4 * (0.25 / 800) ** 0.5
    x = torch.randn(400, 4, state.dim)
    outcome = SimpleNamespace(
        estimates=[x], noised=noised, tokens=target, state=state, label_smoothing=0.0, weight=torch.ones(400)
    )
    loss = TERMS["corrupted"](outcome, mask)
    assert (loss[same] > 0).all() and (loss[~noised] == 0).all()


@pytest.mark.parametrize("steps", [0, 5])
def test_the_weight_of_rdm_is_the_share_kept_a_step_earlier(steps):
    t = torch.tensor([[0.2], [0.6], [1.0]]).double()
    expected = 1 - t + (1 / steps if steps else 0)
    torch.testing.assert_close(Schedule("log_linear", steps=steps).kept_before(t), expected, rtol=0, atol=2e-3)
    translator = build(**TOKENS, objective="corrupted,reweighted", diffusion_steps=steps)
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    losses = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0)
    u = translator.schedule.training_time(TIME_SAMPLERS["uniform"]()(noise.fold(keys, Stream.TIME))[0])
    weights = translator.schedule.kept_before(u[:, None])[:, 0].float()
    torch.testing.assert_close(losses.terms["reweighted"], weights * losses.terms["corrupted"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_unrolled_passes_see_words_drawn_from_the_estimate_before(share, monkeypatch):
    """Which are hidden again at the same level where words are hidden; the loss is the mean of the passes'."""
    translator = build(**TOKENS, objective="anchor", mask_share=share, unroll=3)
    source, target, keys = batch()
    padded, seen, made = torch.nn.functional.pad(source, (1, 0), value=BOS), [], []
    denoise = translator.denoise

    def watched(s_t, *rest):
        seen.append(s_t)
        made.append(denoise(s_t, *rest))
        return made[-1]

    monkeypatch.setattr(translator, "denoise", watched)
    losses = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0)
    free = translator.state.free(target.ne(PAD))
    assert len(seen) == 3 and all(torch.equal(s_t[~free], target[~free]) for s_t in seen)
    assert (seen[1] != seen[0]).any() and (seen[2] != seen[1]).any()
    for k in (1, 2):
        drawn = translator.state.sample(made[k - 1], noise.fold(noise.fold(keys, Stream.UNROLL), k, 0), free)
        hidden = seen[k] == MASK
        assert torch.equal(seen[k][free & ~hidden], drawn[free & ~hidden])
        assert bool(hidden.any()) == bool(share)
    each = [translator.state.nll(x, target, mask=free) for x in made]
    assert float(losses.terms["anchor"].sum()) == pytest.approx(float(sum(x.sum() for x in each)) / 3, rel=1e-5)
    (gradient,) = torch.autograd.grad(each[2].sum(), made[1], allow_unused=True)
    assert gradient is None  # nothing flows through what was drawn


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"objective": "mse"}, "--objective mse is for gaussian states, but those of --state tokens are categorical"),
        ({"objective": "elbo", "mask_share": 0.5}, "--objective elbo is the bound where words are only ever hidden"),
        ({"mask_share": 1.5, "objective": "corrupted"}, "--mask-share is 1.5"),
        ({"objective": "elbo", "prediction": "v"}, "--prediction v is for gaussian states"),
        ({"objective": "elbo", "schedule_modifier": "clip"}, "--schedule-modifier clip is for gaussian states"),
        ({"objective": "elbo", "time_min": 1.0}, "--time-min is 1.0"),
        ({"objective": "score_entropy", "diffusion_steps": 9}, "for continuous time, but --diffusion-steps is 9"),
        ({"objective": "vlb", "diffusion_steps": 9, "label_smoothing": 0.1}, "vlb knows no --label-smoothing"),
        ({"objective": "score_entropy", "label_smoothing": 0.1}, "score_entropy knows no --label-smoothing"),
        ({"objective": "elbo", "latent_dim": 4}, "--latent-dim 4 has no meaning with --state tokens"),
        ({"objective": "elbo", "sampler": "ddim"}, "--sampler ddim is for gaussian states"),
        ({"state": "embedding", "objective": "anchor", "mask_share": 0.5}, "--mask-share 0.5 has no meaning with"),
        ({"objective": "elbo", "time_features": "none", "time_conditioning": "norm"}, "--time-features is none"),
        ({"objective": "corrupted", "mask_share": 0.0, "hide_masked": True}, "--hide-masked has no meaning with"),
        ({"state": "embedding", "objective": "anchor", "hide_masked": True}, "--hide-masked True has no meaning"),
        ({"objective": "elbo", "unroll": 2}, "--unroll 2 draws words and has a loss on all of them"),
        ({"objective": "anchor", "unroll": 0}, "--unroll is 0"),
        ({"objective": "anchor", "unroll": 2, "self_conditioning": "both"}, "does not go with --self-conditioning"),
        ({"state": "embedding", "objective": "elbo,anchor"}, "--objective elbo is for categorical states"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, said):
    with pytest.raises(UserError, match=said):
        build(**{**TOKENS, **flags})


# -- the bound for any kernel


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("a_s, a_t", [(0.8, 0.5), (1.0, 0.9), (0.2, 0.01)])
@pytest.mark.parametrize("y_0", [1, 4])
@pytest.mark.parametrize("y_t", [1, 4, 6, V])
@pytest.mark.parametrize("drawn", DRAWN)
def test_a_divergence_is_that_of_matrices(share, a_s, a_t, y_0, y_t, drawn):
    """The posterior against the mixture of posteriors over the estimate; and its gradient."""
    kernel = kernel_of(share, drawn)
    s, t = torch.tensor(a_s).double(), torch.tensor(a_t).double()
    until_s, until_t = matrix(kernel.until(s), drawn), matrix(kernel.until(t), drawn)
    between = matrix(kernel.between(s, t), drawn)
    if until_t[y_0, y_t] == 0:
        return  # cannot be
    torch.manual_seed(y_0 + y_t)
    x = torch.randn(1, 5, requires_grad=True)
    table = torch.randn(V, 5)

    def posterior(y):
        joint = until_s[y] * between[:, y_t]
        return joint / joint.sum() if joint.sum() > 0 else torch.zeros(V + 1).double()

    p = (x @ table.T).double().softmax(-1)[0]
    q = posterior(y_0)
    mixture = sum(p[y] * posterior(y) for y in range(V))
    possible = sum(p[y] for y in range(V) if posterior(y).sum() > 0)
    mixture = mixture / possible
    expected = torch.where(q > 0, q * (q / mixture.where(q > 0, 1.0)).log(), 0.0).sum()
    rows = Rows(torch.tensor([y_t]), torch.tensor([y_0]), s[None], t[None])
    found = divergence(x, table, rows, kernel)
    assert float(found) == pytest.approx(float(expected), abs=1e-5)
    gradients = [torch.autograd.grad(loss.sum(), x, allow_unused=True)[0] for loss in (found, expected)]
    if float(expected) > 1e-9:
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_rows_are_divided_into_chunks(monkeypatch):
    kernel, x, table = kernel_of(0.3), torch.randn(9, 5), torch.randn(V, 5)
    a = torch.linspace(0.9, 0.5, 9).double()
    rows = Rows(torch.tensor([3, 4, V, 5, 6, V, 3, 3, 4]), torch.full((9,), 4), a, a / 2)
    whole = divergence(x, table, rows, kernel)
    monkeypatch.setattr(token_bound, "chunk_rows", lambda *_: 2)
    torch.testing.assert_close(divergence(x, table, rows, kernel), whole)


def test_where_words_are_only_hidden_the_bound_is_the_elbo():
    """Term by term: an improbable word costs what its log-probability says, however small."""
    translator = build(**TOKENS, objective="elbo,vlb", diffusion_steps=8)
    with torch.no_grad():
        translator.state.weight.mul_(30)
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    terms = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0).terms
    torch.testing.assert_close(terms["vlb"], terms["elbo"], rtol=1e-4, atol=1e-4)


# -- targets without a word that is predicted


@pytest.mark.parametrize("normaliser", ["sentences", "tokens", "words"])
@pytest.mark.parametrize("objective, share", [("elbo", 1.0), ("corrupted", 0.0), ("vlb", 0.0)])
def test_an_empty_target_costs_nothing_and_spoils_nothing(normaliser, objective, share):
    steps = 9 if objective == "vlb" else 0
    flags = {**TOKENS, "loss_normaliser": normaliser, "mask_share": share, "diffusion_steps": steps}
    translator = build(**flags, objective=objective)
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    target[1] = torch.tensor([BOS, EOS, PAD, PAD, PAD, PAD])
    losses = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0)
    losses.total.backward()
    assert torch.isfinite(losses.total) and losses.terms[objective][1] == 0
    assert all(torch.isfinite(p.grad).all() for p in translator.parameters() if p.grad is not None)
    none = target[1:2]
    alone = translator.losses(padded[1:2], padded[1:2].ne(PAD), none, none.ne(PAD), keys[1:2], 0)
    assert alone.terms[objective].tolist() == [0]


def test_a_lengths_loss_is_a_mean_over_sentences_whatever_is_predicted():
    """With the normaliser "words", as for other models."""
    translator = build(**TOKENS, objective="elbo")
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    losses = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0)
    logits = translator.length(translator.encode(padded, padded.ne(PAD)).states, padded.ne(PAD))
    expected = translator.length.loss(logits, padded.ne(PAD).sum(-1), target.ne(PAD).sum(-1)).mean()
    assert float(losses.terms["length"].sum() / losses.sample_size) == pytest.approx(float(expected), rel=1e-5)
