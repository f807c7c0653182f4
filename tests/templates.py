"""Templates for tests, and whether a sentence contains one: by trying all ways, in Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_diffusion.alignment.template import GAP, Template

BOS, EOS = 0, 2


def rows_of(*templates: Sequence[int]) -> Tensor:
    """Rows as a task packs them: words and gaps, the end, and zeros behind."""
    return pad_sequence([torch.tensor([*each, EOS]) for each in templates], batch_first=True)


def template_of(*templates: Sequence[int]) -> Template:
    return Template.of(rows_of(*templates), BOS)


def contains(words: Sequence[int], template: Sequence[int]) -> bool:
    """Whether words match a template: its words in their order, with any others where it has a gap, and nowhere
    else."""
    if not template:
        return not words
    if template[0] == GAP:
        return any(contains(words[skipped:], template[1:]) for skipped in range(len(words) + 1))
    return bool(words) and words[0] == template[0] and contains(words[1:], template[1:])
