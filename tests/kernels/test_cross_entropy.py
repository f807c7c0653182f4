import pytest
import torch
import torch.nn.functional as F

from fairseq_diffusion.kernels import log_probs, portable, rounding

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(params=[1, 100, 2**24])
def entries(request, monkeypatch, device):
    """Several chunk sizes: a row at a time, a few, all at once."""
    monkeypatch.setitem(portable.ENTRIES, device.type, request.param)


def inputs():
    torch.manual_seed(0)
    return (
        torch.randn(13, 6, requires_grad=True, dtype=torch.float32),
        torch.randn(31, 6, requires_grad=True),
        torch.randint(31, (13,)),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradients_equal_torch(entries, smoothing):
    x, W, y = inputs()
    weight = torch.rand(13)
    ours = log_probs.linear_cross_entropy(x, W, y, smoothing)
    grads = torch.autograd.grad((ours * weight).sum(), (x, W))
    theirs = F.cross_entropy(x @ W.T, y, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(ours, theirs, atol=1e-6)
    for mine, other in zip(grads, torch.autograd.grad((theirs * weight).sum(), (x, W))):
        assert torch.allclose(mine, other, atol=1e-5)


def test_fp32_under_autocast(entries, device):
    x, W, y = inputs()
    with torch.autocast(device.type, torch.bfloat16):
        loss = log_probs.linear_cross_entropy(x, W, y)
        tokens, log_p = rounding.round_to_rows(x, W)
    assert torch.allclose(loss, F.cross_entropy(x @ W.T, y, reduction="none"), atol=1e-6)
    assert torch.allclose(log_p, (x @ W.T).log_softmax(-1).max(-1).values, atol=1e-5)


def test_rounding_equals_argmax(entries):
    x, W, _ = inputs()
    assert torch.equal(rounding.round_to_rows(x, W)[0], (x @ W.T).argmax(-1))
