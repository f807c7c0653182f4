import pytest
import torch

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.objective.objective import Objective, parse_terms
from fairseq_diffusion.objective.terms import TERMS, Outcome
from fairseq_diffusion.process.embedding import EmbeddingState
from fairseq_diffusion.process.level import Level, times


def outcome(passes=2, sigma_last=1.0, smoothing=0.0):
    torch.manual_seed(0)
    state = EmbeddingState(30, 4)
    tokens = torch.randint(30, (3, 5))
    x_0 = state.encode(tokens)
    estimates = [torch.randn(3, 5, 4, requires_grad=True) for _ in range(passes)]
    return Outcome(tokens, x_0, estimates, Level.variance_preserving(times([[sigma_last]])), state, smoothing)


def test_mse_averages_both_passes_and_does_not_detach_x_0():
    o = outcome()
    expected = sum(((e - o.x_0) ** 2).mean(-1) for e in o.estimates) / 2
    assert torch.allclose(TERMS["mse"](o), expected)
    assert torch.autograd.grad(TERMS["mse"](o).sum(), o.state.weight)[0].abs().sum() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rounding_sees_x_0_and_anchor_the_estimates(smoothing):
    o = outcome(smoothing=smoothing)

    def ce(x):
        log_p = (x @ o.state.table().T).log_softmax(-1)
        nll = -log_p.gather(-1, o.tokens[..., None])[..., 0]
        return (1 - smoothing) * nll - smoothing * log_p.mean(-1)

    assert torch.allclose(TERMS["rounding"](o), ce(o.x_0), atol=1e-5)
    assert torch.allclose(TERMS["anchor"](o), (ce(o.estimates[0]) + ce(o.estimates[1])) / 2, atol=1e-5)
    reached = torch.autograd.grad(TERMS["rounding"](o).sum(), o.estimates, allow_unused=True)
    assert reached == (None, None)


def test_prior_is_zero_when_the_schedule_ends_in_noise():
    assert TERMS["prior"](outcome()).abs().max() == 0
    o = outcome(sigma_last=0.6)
    assert torch.allclose(TERMS["prior"](o), 0.64 * (o.x_0**2).mean(-1))


def test_normalisers():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    values = torch.tensor([[1.0, 2, 3, 4], [10, 20, 1000, 1000]])
    sentences, tokens = Objective("mse", "sentences"), Objective("mse", "tokens")
    assert (sentences.share(values, mask).sum() / sentences.sample_size(mask)).item() == pytest.approx((2.5 + 15) / 2)
    assert (tokens.share(values, mask).sum() / tokens.sample_size(mask)).item() == pytest.approx(40 / 6)
    once_a_sentence = torch.tensor([1.0, 4.0])
    assert sentences.share(once_a_sentence, mask).tolist() == [1, 4]
    assert tokens.share(once_a_sentence, mask).tolist() == [4, 8]


def test_parse_terms():
    assert parse_terms("mse=1, anchor=0.5,rounding") == {"mse": 1.0, "anchor": 0.5, "rounding": 1.0}


@pytest.mark.parametrize(
    "text, sentence", [("mes=1", "unknown objective term 'mes'.*mse"), ("mse=x", "no number"), (" ", "names no term")]
)
def test_bad_objectives_are_explained(text, sentence):
    with pytest.raises(UserError, match=sentence):
        Objective(text)


def test_bad_normaliser_is_explained():
    with pytest.raises(UserError, match="sentences, tokens"):
        Objective("mse", "words")
