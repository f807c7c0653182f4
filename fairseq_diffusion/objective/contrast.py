"""Frequency-aware contrast: the states of different words are kept apart, those of rare words more.  torch only.

Our reading of the abstract of frequency-aware contrastive learning (FCL).  Its formula, temperature and weight are not
known to us.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.network.dropout import Dropout

CONTRAST = "frequency_contrast"  # the loss' name, in logs and as a flag
LEAST_TEMPERATURE = 0.03  # where exp(-2 / tau), beside the largest there can be, is no 0 in fp32
POSITIONS = 2048  # of a batch that are compared, at most: the cost is quadratic in them


def rarity_of(counts: Tensor) -> Tensor:
    """g [V] in fp32, how rare words are that occur `counts` [V] times; -1 of symbols that are no words, whose count is.

    H(w) = -log frequency, less its mean over running words and divided by its standard deviation there, is clipped to
    [0, 1]: g is 0 for the words of most of a text.  What does not occur counts as if it did once.
    """
    words, counts = counts >= 0, counts.double().clamp(min=1)
    frequency = counts.where(words, 0.0) / counts.where(words, 0.0).sum()
    information = -frequency.log().where(words, 0.0)
    mean = (frequency * information).sum()
    deviation = (frequency * (information - mean).square()).sum().sqrt()
    g = (information - mean) / deviation.clamp(min=1e-6)  # not 0, where all words are alike
    return g.clamp(0, 1).where(words, -1.0).float()


def frequency_contrast(
    states: Tensor, views: Tensor, words: Tensor, rarity: Tensor, real: Tensor, temperature: float
) -> Tensor:
    """How badly the word of each of N positions is told from others' words by its state, [N] in fp32:

        -log [ sum_P exp(z_i z_j / tau) / ( sum_P exp(z_i z_j / tau) + sum_(y_j != y_i) w_ij exp(z_i z_j / tau) ) ]

    where z is a state of norm 1, P are the other positions with the word y_i and a second view of i itself, and
    w_ij = 1 + g_i g_j.

    Args:
        states: [N, h], of which `views` [N, h] are the second views.
        words: y [N].
        rarity: g [N].
        real: [N], false at positions that take no part; theirs is 0.
        temperature: tau, at least LEAST_TEMPERATURE.
    """
    with torch.autocast(states.device.type, enabled=False):
        z, view = (F.normalize(x.float().masked_fill(~real[:, None], 0), dim=-1) for x in (states, views))
        similar, own = (((x - 1) / temperature).exp() for x in (z @ z.T, (z * view).sum(-1)))
        same = words[:, None] == words
        others = same ^ torch.eye(len(words), dtype=torch.bool, device=words.device)  # of them, not i itself
        sums = torch.stack([real, real * rarity], -1).float()
        negative = (similar.masked_fill(same, 0) @ sums * torch.stack([real, rarity], -1)).sum(-1)
        positive = own + similar.masked_fill(~others, 0) @ sums[:, 0]
        return ((positive + negative).log() - positive.log()).masked_fill(~real, 0)


class FrequencyContrast(KeepsPrecision):
    """The contrast within a batch, of as many of its positions as are affordable."""

    rarity: Tensor

    def __init__(self, weight: float, temperature: float = 0.1, dropout: float = 0.1, positions: int = POSITIONS):
        """
        Args:
            weight: of the loss.
            temperature: tau.
            dropout: of a state, for a second view of it.  Out of training that is the state itself.
            positions: that are compared, at most.
        """
        super().__init__()
        self.weight, self.temperature, self.positions = weight, temperature, positions
        self.dropout = Dropout(dropout)
        self.register_buffer("rarity", torch.zeros(0), persistent=False)  # it comes with the dictionary

    def count_words(self, counts: Tensor) -> None:
        """How often each word is in the training data, [V]; -1 for symbols that are no words."""
        self.rarity = rarity_of(counts).to(self.rarity.device)

    def forward(self, states: Tensor, words: Tensor, where: Tensor, keys: Tensor) -> Tensor:
        """What each sentence adds to the mean of `frequency_contrast` over the positions that are compared, [B].

        Args:
            states: [B, L, h].
            words: [B, L], of which symbols that are no words take no part.
            where: [B, L], true at the positions that may be compared.
            keys: random keys [B], which choose among positions if there are too many.
        """
        rarity = self.rarity[words]
        counted = where & (rarity >= 0)
        order = noise.uniform(keys, words.shape[1]).masked_fill(~counted, 2).flatten()
        chosen = order.topk(min(self.positions, len(order)), largest=False).indices
        rows, real = states.flatten(0, 1).index_select(0, chosen), counted.flatten()[chosen]
        own, g = words.flatten()[chosen], rarity.flatten()[chosen]
        loss = frequency_contrast(rows, self.dropout(rows), own, g, real, self.temperature)
        each = loss.new_zeros(len(order)).scatter(0, chosen, loss).view(words.shape).sum(-1)
        return each / real.sum().clamp(min=1)
