"""A batch of words, and kernels of words as matrices."""

import torch
from gaussians import BOS, EOS, PAD, sources

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.token_kernel import TokenKernel

TOKENS = {"state": "tokens", "schedule": "log_linear", "self_conditioning": "none", "loss_normaliser": "words"}

V = 7  # 0 to 2 are special, 3 to 6 words, and the mask is behind them
DRAWN = [3, 4, 5, 6], [3, 6]  # side by side, and with words between them that are never drawn


def kernel_of(share, drawn=DRAWN[0]):
    return TokenKernel(share, torch.isin(torch.arange(V + 1), torch.tensor(drawn)), V)


def matrix(shares, drawn=DRAWN[0]):
    """q(column | row) over the words and the mask, [V + 1, V + 1]."""
    q = torch.zeros(V + 1, V + 1).double()
    q[:V, :V] = torch.eye(V) * shares.kept
    q[:V, drawn] += shares.replaced / len(drawn)
    q[:V, V] = shares.hidden
    q[V, V] = 1
    return q


def batch():
    source = sources((5, 7, 4))
    target = torch.tensor([[BOS, 5, 9, 6, 7, EOS], [BOS, 4, 6, EOS, PAD, PAD], [BOS, 8, 8, 8, EOS, PAD]])
    return source, target, noise.fold(torch.arange(3), 11)
