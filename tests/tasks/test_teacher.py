"""The autoregressive model beside ours: what is refused, and that checking it leaves it as it is."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel
from fairseq_diffusion.tasks.teacher import check_alone, check_count, check_embeddings, check_when_loaded

SIZES = {"source": 7, "target": 9}


class Side(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(words, 2)


class Model(nn.Module):
    def __init__(self, source: int = 7, target: int = 9) -> None:
        super().__init__()
        self.encoder, self.decoder = Side(source), Side(target)


@pytest.mark.parametrize("side, other", [("source", {"source": 8}), ("target", {"target": 8})])
def test_weights_of_other_sizes_are_refused(side: str, other: dict[str, int]) -> None:
    model, state = check_when_loaded(Model(), SIZES), Model(**{**SIZES, **other}).state_dict()
    with pytest.raises(UserError, match=f"a {side} dictionary of 8 entries, but this data has {SIZES[side]};"):
        model.load_state_dict(state)


def test_a_copy_loads_into_itself() -> None:
    """As the one that --store-ema makes."""
    model = check_when_loaded(Model(), SIZES)
    kept, other = model.encoder.embed_tokens.weight.clone(), Model().state_dict()
    twin = copy.deepcopy(model)
    twin.load_state_dict(other)
    assert torch.equal(model.encoder.embed_tokens.weight, kept)
    assert torch.equal(twin.encoder.embed_tokens.weight, other["encoder.embed_tokens.weight"])
    with pytest.raises(UserError, match="source dictionary of 8 entries"):
        twin.load_state_dict(Model(source=8).state_dict())


def test_shared_embeddings_take_one_dictionary() -> None:
    shared, apart = SimpleNamespace(share_all_embeddings=True), SimpleNamespace()
    check_embeddings(shared, "words", "words")
    check_embeddings(apart, "words", "others")
    with pytest.raises(UserError, match="--joined-dictionary"):
        check_embeddings(shared, "words", "others")


OURS, AR = TranslatorModel(None, nn.Identity(), 0, 1), nn.Identity()


@pytest.mark.parametrize(
    "models, rescore, draft",
    [([OURS], False, False), ([OURS, AR], True, False), ([OURS, OURS], False, True), ([OURS, OURS, AR], True, True)],
)
def test_counts_that_agree(models: list[Any], rescore: bool, draft: bool) -> None:
    check_count(models, rescore, draft)


@pytest.mark.parametrize(
    "models, rescore, draft, words",
    [
        ([OURS], True, False, "--path OURS.pt:AR.pt, but there are 1"),
        ([OURS, AR, AR], True, False, "there are 3"),
        ([OURS, AR], False, False, "names 2 checkpoints"),
        ([OURS], False, True, "--draft asks for --path OURS.pt:DRAFT.pt, but there are 1"),
        ([OURS, OURS, OURS], False, True, "there are 3"),
        ([OURS, OURS], True, True, "--draft and --iter.* asks? for --path OURS.pt:DRAFT.pt:AR.pt"),
        ([OURS, AR], False, True, "the second checkpoint on --path is another"),
        ([OURS, AR, OURS], True, True, "the second checkpoint on --path is another"),
    ],
)
def test_counts_that_do_not(models: list[Any], rescore: bool, draft: bool, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_count(models, rescore, draft)


def test_ours_comes_first() -> None:
    check_alone([AR, AR])
    with pytest.raises(UserError, match="name the diffusion model first"):
        check_alone([AR, OURS])
