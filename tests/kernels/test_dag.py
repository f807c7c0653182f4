"""Sums and maxima over paths against enumeration of all of them, and against a naive loop with autograd."""

from functools import lru_cache
from itertools import combinations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from fairseq_diffusion.kernels import portable
from fairseq_diffusion.kernels.dag import dag_best_path, dag_log_likelihood

pytestmark = pytest.mark.usefixtures("device")
FORMS = (None, "scaled", "log")
B, M, L = 400, 4, 7


@pytest.fixture(params=[150, B])
def together(request, monkeypatch, device):
    """Some sentences at a time, or all."""
    monkeypatch.setitem(portable.ENTRIES, device.type, request.param * L * L)


@lru_cache(None)
def paths(m, g):
    """All strictly increasing vertices 0 = a_1 < ... < a_m = g - 1, [A, m]."""
    if m == 1:
        found = [(0,)] if g == 1 else []
    else:
        found = [(0, *inner, g - 1) for inner in combinations(range(1, g - 1), m - 2)] if g > 1 else []
    return torch.tensor(found, dtype=torch.long).view(-1, m)


def draws(batch=B, words=M, vertices=L, std=1.0, holes=0.15, dtype=torch.float64, seed=0):
    """Sentences of all sizes with -inf in between, garbage outside; many cannot be said."""
    torch.manual_seed(seed)

    def drawn(*shape):
        x = std * torch.randn(shape, dtype=torch.float64)
        return torch.where(torch.rand(shape) < holes, -torch.inf, x).to(dtype)

    match, links = drawn(batch, words, vertices), drawn(batch, vertices, vertices)
    sizes = (torch.randint(1, top + 1, (batch,)) for top in (words, vertices))
    return match, links, *sizes


def graph(batch, words, vertices, std, seed=0):
    """Log-probabilities as of a network, all sentences of full size."""
    torch.manual_seed(seed)
    match = -(std * torch.randn(batch, words, vertices)).abs()
    links = torch.randn(batch, vertices, vertices)
    links = links.masked_fill(~torch.ones_like(links).bool().triu(1), -torch.inf)
    sizes = torch.full((batch,), words), torch.full((batch,), vertices)
    return match.double(), links.log_softmax(-1).double(), *sizes  # the last row is nan: it leads nowhere


def enumerated(match, links, lengths, sizes):
    """For each sentence its paths [A, m], and their log-probabilities [A]."""
    for emit, link, m, g in zip(match, links, lengths.tolist(), sizes.tolist()):
        a = paths(m, g)
        yield a, emit[torch.arange(m), a].sum(-1) + link[a[:, :-1], a[:, 1:]].sum(-1)


def naive(match, links, lengths, sizes, low=-1e9):
    """log P [B] by the textbook loop in logarithms; autograd goes through it."""
    j = torch.arange(match.shape[2])
    match = match.clamp(min=low)
    links = links.nan_to_num(low).clamp(min=low).where(j[:, None] < j, low)
    alpha = [match[:, 0].where(j == 0, low)]
    for t in range(1, match.shape[1]):
        alpha.append(match[:, t] + (alpha[-1][:, :, None] + links).logsumexp(1))
    return torch.stack(alpha, 1)[torch.arange(len(match)), lengths - 1, sizes - 1]


def gradients(function, match, links, *rest, weight=None):
    """What `function` says, and the gradients of its (weighted) sum."""
    match, links = match.clone().requires_grad_(), links.clone().requires_grad_()
    value = function(match, links, *rest)
    total = (value if weight is None else value * weight).sum()
    return value.detach(), *torch.autograd.grad(total, (match, links))


def likelihood(form=None):
    return lambda *arguments: dag_log_likelihood(*arguments, form)[0]


@pytest.mark.parametrize("form", FORMS)
def test_the_likelihood_sums_all_paths_and_its_gradients_are_posteriors(form, together):
    inputs = draws()
    weight = torch.rand(B, dtype=torch.float64)
    value, by_match, by_links = gradients(likelihood(form), *inputs, weight=weight)
    left_out = dag_log_likelihood(*inputs, form)[1]
    expected, expected_out = torch.zeros(B, dtype=torch.float64), torch.ones(B, dtype=torch.bool)
    cells, ways = torch.zeros_like(by_match), torch.zeros_like(by_links)
    for b, (a, score) in enumerate(enumerated(*inputs)):
        if len(a) and (total := score.logsumexp(0)) > -torch.inf:
            expected[b], expected_out[b] = total, False
            posterior = (weight[b] * (score - total).exp())[:, None].expand(a.shape)
            cells[b].index_put_((torch.arange(a.shape[1]).expand(a.shape), a), posterior, accumulate=True)
            ways[b].index_put_((a[:, :-1], a[:, 1:]), posterior[:, 1:], accumulate=True)
    assert 50 < expected_out.sum() < B - 50
    assert torch.equal(left_out, expected_out)
    for ours, theirs in ((value, expected), (by_match, cells), (by_links, ways)):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_the_best_path_is_the_best_of_all(together):
    inputs = draws(seed=1)
    for words, (a, score) in zip(dag_best_path(*inputs), enumerated(*inputs)):
        if len(a) and score.max() > -torch.inf:
            best = a[score.argmax()]
            assert torch.equal(words[best], torch.arange(len(best)))
            assert (words >= 0).sum() == len(best)
        else:
            assert (words == -1).all()


def test_of_paths_that_are_equally_good_the_best_is_the_lowest():
    match, links = torch.zeros(1, 4, 6), torch.zeros(1, 6, 6)
    assert dag_best_path(match, links, torch.tensor([4]), torch.tensor([6])).tolist() == [[0, 1, 2, -1, -1, 3]]
    assert dag_best_path(match, links, torch.tensor([3]), torch.tensor([5])).tolist() == [[0, 1, -1, -1, 2, -1]]


@pytest.mark.parametrize("form", ["scaled", "log"])
def test_gradcheck(form):
    match, links, lengths, sizes = draws(6, 3, 4, holes=0, seed=2)
    assert dag_log_likelihood(match, links, lengths, sizes, form)[1].sum() == 2
    function = likelihood(form)
    assert torch.autograd.gradcheck(
        lambda m, e: function(m, e, lengths, sizes), (match.requires_grad_(), links.requires_grad_())
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("std", [1, 8, 30])
@pytest.mark.parametrize("words, vertices", [(12, 60), (30, 36)])
def test_sharp_emissions(form, std, words, vertices):
    inputs = graph(3, words, vertices, std)
    ours, theirs = gradients(likelihood(form), *inputs), gradients(naive, *inputs)
    assert torch.allclose(ours[0], theirs[0], rtol=1e-10)
    single = gradients(likelihood(form), *(x.float() for x in inputs[:2]), *inputs[2:])
    assert torch.allclose(single[0], theirs[0].float(), rtol=1e-4)
    for mine, other in zip(ours[1:], theirs[1:]):
        assert torch.allclose(mine, other, atol=1e-9)


def detours(early, late):
    """A path by vertices 1 and 3 that pays `early` on word 1, and one by 2 and 4 that pays `late` twice after it."""
    match, links = torch.zeros(3, 4, 6), torch.full((3, 6, 6), -torch.inf)
    for i, j, log_p in ((0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 4, late), (3, 5, 0), (4, 5, late)):
        links[0, i, j] = log_p
    match[0, 1, 1] = early
    links[1] = 0  # an ordinary sentence; the third has no links
    return match, links, torch.full((3,), 4), torch.full((3,), 6)


@pytest.mark.parametrize(
    "early, late",
    [
        (-800.0, -torch.inf),  # lost is all there is
        (-800.0, -500.0),  # lost is the better one
        (-720.0, -360.0),  # nothing is lost, but best prefix and best suffix together are e^720 above the sum
    ],
)
def test_what_scaled_numbers_lose_is_noticed_and_on_a_cpu_summed_again(early, late, device):
    if device.type != "cpu":
        pytest.skip("elsewhere it is only noticed")
    inputs = detours(early, late)
    assert dag_log_likelihood(*inputs, "scaled")[1].tolist() == [True, False, True]
    value, *grads = gradients(likelihood("scaled"), *(x.double() for x in inputs[:2]), *inputs[2:])
    assert not any(x[0].any() or x[2].any() for x in (value, *grads))

    assert dag_log_likelihood(*inputs)[1].tolist() == [False, False, True]
    ours, theirs = gradients(likelihood(), *inputs), gradients(naive, *(x.double() for x in inputs[:2]), *inputs[2:])
    for mine, other in zip(ours, theirs):
        assert torch.allclose(mine[:2], other[:2].float(), rtol=1e-5)
        assert not mine[2].any()


@pytest.mark.parametrize("form", FORMS)
def test_a_target_that_cannot_be_said_counts_nothing(form):
    match, links = torch.zeros(5, 4, 5), torch.zeros(5, 5, 5)
    lengths, sizes = torch.tensor([4, 3, 3, 1, 3]), torch.tensor([3, 5, 5, 2, 5])  # 0: too long; 3: no end
    match[1], links[2] = -torch.inf, -torch.inf
    match[4, 1] = torch.where(torch.arange(5) == 4, 0.0, -torch.inf)  # word 1 forced where word 2 has to be
    value, by_match, by_links = gradients(likelihood(form), match, links, lengths, sizes)
    assert dag_log_likelihood(match, links, lengths, sizes, form)[1].all()
    assert not value.any() and not by_match.any() and not by_links.any()
    assert (dag_best_path(match, links, lengths, sizes) == -1).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_forced_cell_leaves_the_paths_through_it(form):
    """log P with match = 0 there and -inf around is log P + log posterior - match."""
    match, links, *sizes = graph(4, 5, 9, 1.0)
    value, posterior, _ = gradients(likelihood(form), match, links, *sizes)
    forced = match.clone()
    forced[:, 2] = torch.where(torch.arange(9) == 4, 0.0, -torch.inf)
    expected = value + posterior[:, 2, 4].log() - match[:, 2, 4]
    assert torch.allclose(dag_log_likelihood(forced, links, *sizes, form)[0], expected)
    assert (dag_best_path(forced, links, *sizes)[:, 4] == 2).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("garbage", [1e4, -torch.inf, torch.nan])
def test_padding_is_not_read(form, garbage):
    match, links, lengths, sizes = draws(40, 3, 6, dtype=torch.float32)
    i = torch.arange(6)
    outside = (torch.arange(3)[:, None] >= lengths[:, None, None]) | (i >= sizes[:, None, None])
    backward = (i[:, None] >= i) | (i >= sizes[:, None, None])
    wide_match, wide_links = torch.full((40, 5, 8), garbage), torch.full((40, 8, 8), garbage)
    wide_match[:, :3, :6], wide_links[:, :6, :6] = match, links
    wide_match[:, :3, :6][outside] = wide_links[:, :6, :6][backward] = garbage
    ours = gradients(likelihood(form), match, links, lengths, sizes)
    padded = gradients(likelihood(form), wide_match, wide_links, lengths, sizes)
    assert torch.allclose(ours[0], padded[0])
    for grad, wide in zip(ours[1:], padded[1:]):
        inner = wide[:, : grad.shape[1], :6]
        assert torch.allclose(grad, inner, atol=1e-6)
        assert wide.abs().sum() == inner.abs().sum()
    best = dag_best_path(wide_match, wide_links, lengths, sizes)
    assert torch.equal(best[:, :6], dag_best_path(match, links, lengths, sizes)) and (best[:, 6:] == -1).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_in_and_autocast_changes_nothing(form, dtype, device):
    match, links, *sizes = draws(40, dtype=dtype)
    exact = gradients(likelihood(form), match.double(), links.double(), *sizes)
    with torch.autocast(device.type, torch.bfloat16):
        ours = gradients(likelihood(form), match, links, *sizes)
        best = dag_best_path(match, links, *sizes)
    assert ours[0].dtype == torch.float32 and ours[1].dtype == ours[2].dtype == dtype
    assert torch.allclose(ours[0], exact[0].float(), rtol=1e-6)
    for mine, other in zip(ours[1:], exact[1:]):
        assert torch.equal(mine, other.to(dtype))
    assert torch.equal(best, dag_best_path(match.double(), links.double(), *sizes))


class NewTensors(TorchDispatchMode):
    """How many elements each tensor has that an operation makes anew."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        old = {x.untyped_storage().data_ptr() for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)}
        results = (x for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor))
        self.elements += [x.numel() for x in results if x.untyped_storage().data_ptr() not in old]
        return out


@pytest.mark.parametrize("form", FORMS)
def test_no_tensor_has_words_times_links(form):
    large = []
    for words in (6, 12):
        with NewTensors() as made:
            gradients(likelihood(form), *graph(2, words, 20, 1.0))
        assert max(made.elements) == 2 * 20 * 20
        large.append(made.elements.count(2 * 20 * 20))
    if form != "log":
        assert large[0] == large[1]  # none is made a step
