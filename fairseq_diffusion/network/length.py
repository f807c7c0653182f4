"""Target length as a class: the difference to the source's length, the length itself, or half of it."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.network.transformer import masked_mean, tanh_map
from fairseq_diffusion.registry import Registry

TARGETS = ("difference", "absolute", "half")
BEAMS = ("top_k", "offsets")
SHORTEST = 2  # begin and end of sentence

LENGTH_MAPS: Registry[Callable[[int, int], nn.Module]] = Registry("length map")
LENGTH_MAPS.register("mlp")(lambda hidden, classes: tanh_map(hidden, hidden, classes))
LENGTH_MAPS.register("linear")(lambda hidden, classes: nn.Linear(hidden, classes, bias=False))  # as fairseq's NAT


class LengthHead(nn.Module):
    """A map of the mean encoder state to logits; without `grad` its loss does not reach the encoder."""

    def __init__(self, hidden: int, classes: int, target: str, grad: bool, longest: int, length_map: str = "mlp"):
        super().__init__()
        self.map = LENGTH_MAPS[length_map](hidden, classes)
        self.relative, self.grad, self.unit = target == "difference", grad, 2 if target == "half" else 1
        self.classes, self.longest = classes, longest

    def forward(self, source: Tensor, mask: Tensor) -> Tensor:
        """Encoded source [B, S, h], mask [B, S] -> logits [B, C] in fp32."""
        source = source if self.grad else source.detach()
        return self.map(masked_mean(source, mask)).float()

    def _origin(self, source_length: Tensor) -> Tensor:
        """The length in units that class 0 stands for, [B]."""
        return source_length - self.classes // 2 if self.relative else torch.zeros_like(source_length)

    def loss(self, logits: Tensor, source_length: Tensor, length: Tensor) -> Tensor:
        """Cross-entropy [B] of the true length [B]."""
        return F.cross_entropy(logits, self.class_of(source_length, length), reduction="none")

    def class_of(self, source_length: Tensor, length: Tensor) -> Tensor:
        """The class [B] that stands for a length, the nearest one where there is none."""
        return self._place(source_length, length).clamp(0, self.classes - 1)

    def _place(self, source_length: Tensor, length: Tensor) -> Tensor:
        """The class [B] of a length, rounded up to units, if there were as many as that takes."""
        return -(-length // self.unit) - self._origin(source_length)

    def log_p(self, logits: Tensor, source_length: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities [B, beam] of lengths [B, beam], by the logits [B, C]."""
        return logits.log_softmax(-1).gather(1, self.class_of(source_length[:, None], lengths))

    def nll(self, logits: Tensor, source_length: Tensor, length: Tensor) -> Tensor:
        """-log p [B] of lengths [B], in fp64, by the logits [B, C]; inf for a length that no class stands for."""
        nll = -self.log_p(logits.double(), source_length, length[:, None])[:, 0]
        place = self._place(source_length, length)
        return nll.masked_fill((place < 0) | (place >= self.classes), torch.inf)

    def candidates(
        self, logits: Tensor, source_length: Tensor, beam: int, how: str = "top_k", shortest: Tensor | None = None
    ) -> Tensor:
        """`beam` different lengths a sentence, [B, beam]: the likeliest, or the likeliest and its neighbours; of those
        from `shortest` [B] on."""
        longest = -(-self.longest // self.unit)
        widest = min(self.classes // 2, longest - SHORTEST // self.unit + 1)
        if beam > widest:
            raise UserError(
                f"a length beam of {beam} is wider than this length model allows; "
                f"pass --iter-decode-with-beam {widest} or less"
            )
        shortest = torch.full_like(source_length, SHORTEST) if shortest is None else shortest
        shortest = -(-shortest // self.unit)
        # the window of classes, moved to where it holds enough possible lengths whatever the source's
        lowest, highest = shortest + beam - self.classes, longest - beam + 1
        lengths = torch.maximum(self._origin(source_length), lowest).clamp(max=highest)[:, None] + torch.arange(
            self.classes, device=logits.device
        )
        impossible = (lengths < shortest[:, None]) | (lengths > longest)
        scores = logits.masked_fill(impossible, -torch.inf)
        if how == "offsets":
            offset = lengths - lengths.gather(1, scores.argmax(-1, keepdim=True))
            scores = (-offset.abs() + (offset < 0) / 2).masked_fill(impossible, -torch.inf)
        return (self.unit * lengths.gather(1, scores.topk(beam, -1).indices)).clamp(max=self.longest)
