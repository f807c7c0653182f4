"""Sums over alignments against enumeration of all of them, against a naive loop with autograd, and against torch's."""

from functools import lru_cache
from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F

from fairseq_diffusion.kernels import ctc
from fairseq_diffusion.kernels.ctc import collapse, ctc_best_path, ctc_log_likelihood
from fairseq_diffusion.kernels.forms import form_for, widened

pytestmark = pytest.mark.usefixtures("device")
FORMS = ("scaled", "log")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def draws(seed=0, batch=300, positions=6, words=3, std=1.0, vocabulary=2):
    """Sentences of all sizes, many repeats among them, padded with garbage; some cannot be said."""
    torch.manual_seed(seed)
    emission = std * torch.randn(batch, positions, 1 + words, dtype=torch.float64)
    labels = torch.randint(vocabulary, (batch, words))
    lengths = torch.randint(words + 1, (batch,))
    return emission, labels, lengths, torch.randint(positions + 1, (batch,))


@lru_cache(None)
def alignments(labels, size):
    """All sequences of `size` columns (0 blank, k word y_k) that say `labels`, [A, size]; in plain Python."""

    def says(columns):
        words = [labels[k - 1] if k else None for k in columns]
        kept = [k for k, _ in groupby(columns) if k]
        return kept == [*range(1, len(labels) + 1)] and tuple(w for w, _ in groupby(words) if w is not None) == labels

    found = [columns for columns in product(range(len(labels) + 1), repeat=size) if says(columns)]
    return torch.tensor(found, dtype=torch.long).view(len(found), size)


def enumerated(emission, labels, lengths, sizes):
    """For each sentence its possible alignments [A, size] and their log-probabilities [A]."""
    for e, y, n, size in zip(emission, labels.tolist(), lengths.tolist(), sizes.tolist()):
        paths = alignments(tuple(y[:n]), size)
        scores = e[torch.arange(size), paths].sum(-1)
        yield paths[scores > -torch.inf], scores[scores > -torch.inf]


def total(scores):
    """log-sum [B] of each sentence's scores; -inf where there are none."""
    return torch.stack([s.logsumexp(0) if len(s) else s.new_tensor(-torch.inf) for s in scores])


def naive(emission, labels, lengths, sizes):
    """log P [B] by the textbook loop in log space; autograd goes through it."""
    out = []
    for e, y, T, size in zip(emission, labels.tolist(), lengths.tolist(), sizes.tolist()):
        columns = [0] + [column for k in range(1, T + 1) for column in (k, 0)]
        skip = torch.tensor([s > 2 and k > 0 and y[k - 1] != y[k - 2] for s, k in enumerate(columns)])
        alpha = e[0, columns].where(torch.arange(2 * T + 1) < 2, -1e30)
        for i in range(1, size):
            padded = F.pad(alpha, (2, 0), value=-1e30)
            ways = torch.stack([alpha, padded[1:-1], padded[:-2].where(skip, -1e30)])
            alpha = ways.logsumexp(0) + e[i, columns]
        out.append(alpha[-2:].logsumexp(0))
    return torch.stack(out)


def solved(emission, *rest, form=None):
    """log P [B], what is impossible [B], and d log P / d emission."""
    emission = emission.clone().requires_grad_()
    log_p, impossible = ctc_log_likelihood(emission, *rest, form=form)
    weights = torch.linspace(1, 2, len(log_p), dtype=log_p.dtype)
    grad = torch.autograd.grad((log_p * weights).sum(), emission)[0]
    return log_p.detach(), impossible, grad / weights[:, None, None]


def forced(emission, share, seed=1):
    """Some positions may say one column only, as if glanced at."""
    torch.manual_seed(seed)
    only = F.one_hot(torch.randint(emission.shape[-1], emission.shape[:2]), emission.shape[-1])
    at = torch.rand(emission.shape[:2]) < share
    return torch.where(at[..., None], only.double().log(), emission)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("std, share", [(1, 0), (1, 0.3), (30, 0), (30, 0.1)])
def test_value_and_gradient_equal_enumeration(form, std, share):
    emission, *rest = draws(std=std)
    emission = forced(emission, share).requires_grad_()
    expected = total([scores for _, scores in enumerated(emission, *rest)])
    possible = ~expected.isneginf()
    log_p, impossible, grad = solved(emission.detach(), *rest, form=form)
    assert torch.equal(impossible, ~possible) and 40 < possible.sum() < 280
    assert torch.allclose(log_p, expected.where(possible, 0), **CLOSE)
    wanted = torch.autograd.grad(expected[possible].sum(), emission)[0]
    assert torch.allclose(grad, wanted, **CLOSE)
    inside = torch.arange(6) < rest[-1][:, None]
    assert torch.allclose(grad.sum(-1), (inside & possible[:, None]).double(), **CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_equals_autograd_through_a_naive_loop(form):
    emission, labels, _, _ = draws(1, batch=8, positions=17, words=7, std=3.0)
    lengths, sizes = torch.arange(8), torch.arange(10, 18)
    lengths[7] = 6
    emission.requires_grad_()
    expected = naive(emission, labels, lengths, sizes)
    log_p, impossible, grad = solved(emission.detach(), labels, lengths, sizes, form=form)
    possible = expected > -1e20
    assert torch.equal(impossible, ~possible) and possible.sum() > 5
    assert torch.allclose(log_p[possible], expected[possible], **CLOSE)
    assert torch.allclose(grad, torch.autograd.grad(expected[possible].sum(), emission)[0], **CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    emission, labels, lengths, sizes = draws(2, batch=5, positions=4)
    emission.requires_grad_()
    torch.autograd.gradcheck(lambda e: ctc_log_likelihood(e, labels, lengths, sizes, form=form)[0], emission)


@pytest.mark.parametrize("form", FORMS)
def test_agrees_with_torch_where_all_words_are_there(form):
    emission, labels, lengths, sizes = draws(3, batch=30, positions=12, words=5, vocabulary=4)
    labels, sizes = labels + 1, sizes.clamp(min=1)
    logits = torch.randn(30, 12, 5, dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(-1)
    columns = F.pad(labels, (1, 0))[:, None].expand(-1, 12, -1)
    ours, impossible = ctc_log_likelihood(log_probs.gather(-1, columns), labels, lengths, sizes, form=form)
    wanted = [log_probs.transpose(0, 1), labels, sizes, lengths]
    theirs = -F.ctc_loss(*wanted, reduction="none", zero_infinity=True)
    assert torch.allclose(ours, theirs, **CLOSE)
    assert 0 < impossible.sum() < 15 and torch.equal(theirs == 0, impossible)
    weights = torch.rand(30, dtype=torch.float64)
    mine, other = (torch.autograd.grad((out * weights).sum(), logits, retain_graph=True)[0] for out in (ours, theirs))
    assert torch.allclose(mine, other, **CLOSE)


@pytest.mark.parametrize("share", [0, 0.2])
def test_best_path_is_the_best_of_all(share):
    emission, *rest = draws(4, std=3.0)
    emission, sizes = forced(emission, share), rest[-1]
    best = ctc_best_path(emission, *rest)
    impossible = 0
    for path, size, (paths, scores) in zip(best, sizes, enumerated(emission, *rest)):
        assert (path[size:] == -1).all()
        if len(scores):
            assert torch.equal(path[:size], paths[scores.argmax()])
        else:
            impossible += 1
            assert (path == -1).all()
    assert 20 < impossible < 250


@pytest.mark.parametrize("std", [0, 1, 30])
def test_the_best_path_collapses_to_the_target(std):
    emission, labels, lengths, sizes = draws(5, positions=20, words=8, std=std)
    best = ctc_best_path(emission, labels, lengths, sizes)
    tokens = labels.gather(-1, (best - 1).clamp(min=0)).where(best > 0, 7)
    kept = collapse(tokens, best >= 0, blank=7)
    _, impossible = ctc_log_likelihood(emission, labels, lengths, sizes)
    assert 20 < impossible.sum() < 150
    for said, keep, y, n, bad in zip(tokens, kept, labels, lengths, impossible):
        assert said[keep].tolist() == ([] if bad else y[:n].tolist())


def test_collapse_keeps_what_plain_python_keeps():
    torch.manual_seed(6)
    tokens = torch.randint(3, (4, 50, 7))
    first, last = torch.randint(4, (4, 50, 1)), torch.randint(3, 8, (4, 50, 1))
    mask = (torch.arange(7) >= first) & (torch.arange(7) < last)  # padding on either side, garbage in it
    kept = collapse(tokens, mask, blank=0)
    assert not (kept & ~mask).any() and kept[..., -1].any()
    for row, real, keep in zip(tokens.view(-1, 7), mask.view(-1, 7), kept.view(-1, 7)):
        assert row[keep].tolist() == [token for token, _ in groupby(row[real].tolist()) if token != 0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e4])
def test_padding_leaves_no_trace(form, garbage):
    emission, labels, lengths, sizes = draws(7, batch=40)
    wide = F.pad(emission, (0, 2, 0, 3))
    outside = (torch.arange(9) >= sizes[:, None])[..., None] | (torch.arange(6) > lengths[:, None])[:, None]
    wide, more = wide.masked_fill(outside, garbage), F.pad(labels, (0, 2), value=1)
    clean, padded = (solved(e, y, lengths, sizes, form=form) for e, y in ((emission, labels), (wide, more)))
    assert torch.allclose(clean[0], padded[0], **CLOSE) and torch.equal(clean[1], padded[1])
    assert torch.allclose(F.pad(clean[2], (0, 2, 0, 3)), padded[2], **CLOSE)
    best = ctc_best_path(emission, labels, lengths, sizes)
    assert torch.equal(F.pad(best, (0, 3), value=-1), ctc_best_path(wide, more, lengths, sizes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", FORMS)
def test_low_precision_inputs_are_widened(form, dtype, device):
    emission, *rest = draws(8, batch=30, positions=20, words=8, std=4.0)
    emission = emission.to(dtype)
    with torch.autocast(device.type, torch.bfloat16):
        log_p, _, grad = solved(emission, *rest, form=form)
    expected, _, wanted = solved(emission.double(), *rest, form=form)
    assert log_p.dtype == torch.float32 and torch.allclose(log_p.double(), expected, rtol=1e-6)
    assert grad.dtype == torch.float32  # divided by fp32 weights
    assert torch.allclose(grad.double(), wanted, atol=2 * torch.finfo(dtype).eps)


def long_sentence(sentences=2, words=60, positions=180):
    """labels, lengths, sizes of sentences of 60 different words on a canvas three times as long."""
    labels = torch.arange(words).expand(sentences, -1)
    return labels, torch.full((sentences,), words), torch.full((sentences,), positions)


@pytest.mark.parametrize("nats", [8.0, 20.0, 90.0])
def test_a_model_that_says_blank_everywhere_loses_no_target_in_the_scaled_form(nats):
    """All blank is up to 5400 nats ahead of the target."""
    emission = torch.full((2, 180, 61), -nats, dtype=torch.float64)
    emission[..., 0] = 0
    scaled, log = (solved(emission, *long_sentence(), form=form) for form in FORMS)
    assert not scaled[1].any() and scaled[0][0] < -40 * nats
    assert all(torch.allclose(mine, other, **CLOSE) for mine, other in zip(scaled, log))


def test_what_the_scaled_form_loses_is_computed_again():
    """The second sentence's model is certain of the words in the opposite order."""
    emission = torch.randn(2, 180, 61, dtype=torch.float64)
    emission[1] -= 400.0 * ((torch.arange(180)[:, None] + 3 * torch.arange(61)) // 3 - 59).abs()
    arguments = (emission, *long_sentence())
    scaled, log, chosen = (solved(*arguments, form=form) for form in (*FORMS, None))
    assert scaled[1].tolist() == [False, True] and scaled[0][1] == 0 and (scaled[2][1] == 0).all()
    assert not chosen[1].any() and log[0][1] < -700
    assert all(torch.allclose(mine, other, **CLOSE) for mine, other in zip(chosen, log))


@pytest.mark.parametrize("std, flagged", [(8, 0), (30, 1), (100, 60)])
def test_the_scaled_form_is_right_or_says_that_it_is_not(std, flagged):
    arguments = draws(9, batch=100, positions=60, words=20, std=std, vocabulary=9)
    arguments[-1][:] = 60
    scaled, log = (solved(*arguments, form=form) for form in FORMS)
    assert not log[1].any() and scaled[1].sum() >= flagged and (flagged or not scaled[1].any())
    for mine, other in zip(scaled, log):
        assert torch.allclose(mine[~scaled[1]].double(), other[~scaled[1]].double(), **CLOSE)


def test_the_log_form_in_fp32(monkeypatch):
    """Where fp64 is slow or missing."""
    arguments = draws(10, batch=50, positions=60, words=20, std=8.0)
    wanted = solved(*arguments, form="log")
    monkeypatch.setattr(ctc, "widened", lambda x, form: x.float())
    log_p, impossible, grad = solved(arguments[0].float(), *arguments[1:], form="log")
    assert torch.equal(impossible, wanted[1]) and torch.allclose(log_p.double(), wanted[0], rtol=1e-5)
    assert torch.allclose(grad.double(), wanted[2], atol=1e-3)


def test_the_form_suits_the_device(monkeypatch):
    devices = {(9, 0): "scaled", (8, 0): "scaled", (8, 6): "log", (12, 0): "log"}
    for capability, form in devices.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert form_for(torch.device("cuda")) == form
    assert form_for(torch.device("cpu")) == "scaled" and form_for(torch.device("mps")) == "log"
    half = torch.zeros(1, dtype=torch.float16, device="cpu")
    assert widened(half, "log").dtype == torch.float64
    assert widened(half.to("meta"), "log").dtype == torch.float32
