"""A batch of words, and kernels of words as matrices."""

import torch
from gaussians import BOS, EOS, PAD, sources

from fairseq_diffusion.kernels import noise

TOKENS = {"state": "tokens", "schedule": "log_linear", "self_conditioning": "none", "loss_normaliser": "words"}

V, FIRST, K = 7, 3, 4  # 0 to 2 are special, 3 to 6 words


def matrix(shares):
    """q(column | row) over the words and the mask, [V + 1, V + 1]."""
    q = torch.zeros(V + 1, V + 1).double()
    q[:V, :V] = torch.eye(V) * shares.kept
    q[:V, FIRST : FIRST + K] += shares.replaced / K
    q[:V, V] = shares.hidden
    q[V, V] = 1
    return q


def batch():
    source = sources((5, 7, 4))
    target = torch.tensor([[BOS, 5, 9, 6, 7, EOS], [BOS, 4, 6, EOS, PAD, PAD], [BOS, 8, 8, 8, EOS, PAD]])
    return source, target, noise.fold(torch.arange(3), 11)
