"""Words that say more are hidden earlier: the identity of information, the ends, the steps back, and the losses."""

import pytest
import torch
from gaussians import BOS, EOS, PAD, WORDS, build, encode, sources
from token_batches import TOKENS, batch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.grid import make_grid
from fairseq_diffusion.samplers.loop import SAMPLERS
from fairseq_diffusion.translators.batch import Lengths
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

COUNTS = torch.tensor([-1, -1, -1, 3, *(2**k for k in range(WORDS - 4)), -1])
H = -(COUNTS.double() / COUNTS.clamp(min=0).sum()).log()
TIMES = torch.linspace(0, 1, 201).double()[:, None]
SPINDLE = {**TOKENS, "schedule_modifier": "spindle"}


def schedule(steps=0):
    made = Schedule("log_linear", "spindle", steps=steps)
    made.modifier.count_words(COUNTS)
    return made


def kept(tokens, t=TIMES):
    return schedule().level(t, tokens=torch.tensor([tokens])).alpha.square()


@pytest.mark.parametrize("around", [[], [BOS], [PAD, PAD]])
def test_information_falls_in_a_straight_line(around):
    """sum_i H_i (a_i - (1 - t)) = 0 where nothing is clipped; symbols do not count."""
    tokens = [*around, 8, 9, 10, 9, 8]
    a = kept(tokens)
    words = slice(len(around), None)
    assert (a[:, words] > 0.001).sum() > 900
    inside = ((a[:, words] > 1e-9) & (a[:, words] < 1 - 1e-9)).all(-1)
    assert inside.sum() > 150
    lost = (H[tokens[words]] * (a[:, words] - (1 - TIMES))).sum(-1)
    torch.testing.assert_close(lost[inside], torch.zeros_like(lost[inside]), atol=1e-6, rtol=0)
    assert a[100, len(around)] < 0.5 < a[100, len(around) + 2]  # 8 is rarer than 10
    torch.testing.assert_close(a[:, : len(around)], (1 - TIMES).expand(-1, len(around)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("tokens", [[4, 19, 19, 19, 19], [4, 4, 4, 19], [7], [5, 12, 18]])
def test_a_share_only_falls_from_1_to_0(tokens):
    """Also of words so frequent that it is clipped."""
    a = kept(tokens)
    assert (a.diff(dim=0) <= 1e-12).all()
    torch.testing.assert_close(a[0], torch.ones(len(tokens)).double())
    torch.testing.assert_close(a[-1], torch.zeros(len(tokens)).double())


def test_its_equation_and_what_is_never_seen():
    """A word without a count is as rare as the rarest."""
    tokens, t = [7, 9, 10], torch.tensor([[0.5]]).double()
    excess = 1 - H[tokens].mean() / H[tokens]
    torch.testing.assert_close(kept(tokens, t)[0], 0.5 - 0.3 * excess)
    counts = COUNTS.clone()
    counts[6] = 0
    made = schedule()
    made.modifier.count_words(counts)
    assert made.modifier.information[6] == made.modifier.information.max()
    assert not made.modifier.information[[BOS, PAD, EOS, WORDS]].any()


def test_rates_are_slopes_of_each_word():
    tokens, t, h = torch.tensor([[7, 9, 10, PAD]]), torch.tensor([[0.5]]).double(), 1e-6
    hidden = [schedule().level(time, tokens=tokens).sigma.square() for time in (t - h, t, t + h)]
    expected = (hidden[2] - hidden[0]) / (2 * h) / hidden[1]
    torch.testing.assert_close(schedule().reveal_rate(t, tokens), expected, rtol=1e-5, atol=1e-6)
    steps = schedule(10)
    before, now = (steps.level(time, tokens=tokens).alpha.square() for time in (t - 0.1, t))
    torch.testing.assert_close(steps.reveal_rate(t, tokens), 10 * (before - now) / (1 - now))


def test_a_step_shows_each_word_with_its_own_probability():
    """P(y_s = k) = p_k (m_t(k) - m_s(k)) / m_t(k), and hidden else."""
    count, p, words = 20000, torch.tensor([0.5, 0.3, 0.2]).double(), [5, 14, 17]
    translator = build(**SPINDLE, objective="elbo")
    translator.count_words(COUNTS)
    with torch.no_grad():
        translator.state.weight.copy_(torch.eye(*translator.state.weight.shape))
    grid = make_grid(translator.schedule, 4)
    step = SAMPLERS["ancestral"].steps(grid)[2]
    logits = torch.full((WORDS + 1,), -1e4)
    logits[words] = p.log().float()
    narrow = torch.linalg.lstsq(translator.state.readout(), logits[:WORDS, None]).solution[:, 0]
    estimate = narrow.expand(1, count, 3, -1)

    class Alone:
        state, mask = translator.state, torch.ones(1, count, 3, dtype=torch.bool)
        free = translator.state.free(mask)

    s_t = torch.tensor([BOS, WORDS, EOS]).expand(1, count, 3)
    given = (estimate[0, 0, 0] @ translator.state.readout().T).softmax(-1).double()
    given = given.index_fill(0, torch.tensor([BOS, PAD, EOS]), 0)
    given = given / given.sum()
    drawn = step(Alone(), s_t, estimate, estimate, noise.fold(torch.arange(count)[None], 5))[0, :, 1]
    t, s = grid.t[2], grid.t[3]
    for k in range(4, WORDS):
        m_t, m_s = (1 - kept([BOS, k, EOS], time.view(1, 1))[0, 1] for time in (t, s))
        expected = float(given[k] * (m_t - m_s) / m_t)
        found = float((drawn == k).double().mean())
        assert abs(found - expected) < 4 * (0.25 / count) ** 0.5
    assert {*drawn.tolist()} <= {*range(3, WORDS + 1)} and (drawn == WORDS).any()


@pytest.mark.parametrize("steps", [0, 20])
def test_losses_are_finite_and_weigh_each_word_by_its_rate(steps):
    translator = build(**SPINDLE, objective="elbo,corrupted", diffusion_steps=steps, time_min=0.01)
    translator.count_words(COUNTS)
    source, target, keys = batch()
    padded = torch.nn.functional.pad(source, (1, 0), value=BOS)
    found = translator.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0)
    found.total.backward()
    gradients = [p.grad for p in translator.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients) and found.terms["elbo"].isfinite().all()
    plain = build(**TOKENS, objective="elbo,corrupted", diffusion_steps=steps, time_min=0.01)
    assert not torch.allclose(
        found.terms["elbo"],
        plain.losses(padded, padded.ne(PAD), target, target.ne(PAD), keys, 0).terms["elbo"],
    )


@pytest.mark.parametrize("sampler", ["ancestral", "confidence", "mask_predict"])
def test_it_decodes(sampler):
    """Every position is read as a word at the end, in as many steps as asked."""
    translator = build(**SPINDLE, objective="elbo")
    translator.count_words(COUNTS)
    decoder = translator.decoder_for(DiffusionOptions(steps=5, sampler=sampler))
    keys = noise.fold(torch.arange(7)[:, None, None], torch.arange(1))
    found = decoder(encode(translator, sources()), Lengths(torch.full((7, 1), 9), torch.zeros(7, 1), 9), keys)
    assert (found.sizes == 7).all() and ((found.calls <= 5) & (found.calls > 0)).all()


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"objective": "vlb"}, "--objective vlb takes all words to have one level of noise"),
        ({"objective": "score_entropy"}, "--objective score_entropy takes all words to have one level"),
        ({"objective": "corrupted", "mask_share": 0.5}, "--schedule-modifier spindle says when words are hidden"),
        ({"objective": "anchor", "state": "embedding", "schedule": "sqrt"}, "spindle says when words are hidden"),
    ],
)
def test_what_does_not_go_with_it_is_refused(flags, said):
    with pytest.raises(UserError, match=said):
        build(**{**SPINDLE, **flags})


def test_a_draft_is_refused():
    translator = build(**SPINDLE, objective="elbo")
    with pytest.raises(UserError, match="--draft begins at one level of noise, but each word"):
        translator.decoder_for(DiffusionOptions(steps=3, sampler="confidence", draft=0.5))


def test_there_is_no_bound_on_its_likelihood():
    translator = build(**SPINDLE, objective="elbo")
    source, target, keys = batch()
    with pytest.raises(
        UserError, match="no bound on the likelihood where each word or position has a level of its own"
    ):
        translator.likelihood(encode(translator, source), target, target.ne(PAD), keys, 4)
