"""The mean row under a softmax against all probabilities in fp64."""

import pytest
import torch

from fairseq_diffusion.kernels import portable
from fairseq_diffusion.kernels.expected import expected_rows

pytestmark = pytest.mark.usefixtures("device")
N, D, V, WIDTH = 13, 6, 31, 5


def dense(x, W, T):
    return (x.double() @ W.double().T).softmax(-1) @ T.double()


@pytest.mark.parametrize("entries", [1, 100, 2**24])
def test_in_chunks_it_is_the_dense_form_with_its_gradients(entries, monkeypatch, device):
    monkeypatch.setitem(portable.ENTRIES, device.type, entries)
    torch.manual_seed(0)
    parts = [torch.randn(*shape).requires_grad_() for shape in ((N, D), (V, D), (V, WIDTH))]
    found, wanted, up = expected_rows(*parts), dense(*parts), torch.randn(N, WIDTH)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-6)
    mine, true = (torch.autograd.grad((made * up).sum(), parts) for made in (found, wanted))
    torch.testing.assert_close(mine, true, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(expected_rows(*parts), found, atol=1e-6, rtol=1e-6)


def test_autocast_changes_nothing(device):
    torch.manual_seed(0)
    x, W, T = torch.randn(N, D).bfloat16(), torch.randn(V, D), torch.randn(V, WIDTH)
    with torch.autocast(device.type, torch.bfloat16):
        found = expected_rows(x, W, T)
    torch.testing.assert_close(found.double(), dense(x, W, T), atol=1e-6, rtol=1e-6)
