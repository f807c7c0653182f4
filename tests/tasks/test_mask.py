"""A mask symbol is in the target dictionary for the models that need one, and for no others."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from fairseq import models, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from support import TINY, TINY_BLOCKS, training

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.models.base import check_joined  # noqa: E402
from fairseq_diffusion.tasks.checks import fingerprint  # noqa: E402
from fairseq_diffusion.tasks.dictionary import MASK, TableDictionary  # noqa: E402
from fairseq_diffusion.tasks.diffusion_translation import class_of  # noqa: E402

AR = "--encoder-embed-dim 8 --encoder-ffn-embed-dim 8 --encoder-layers 1 --encoder-attention-heads 2 --decoder-layers 1"


def dictionary(*words: str) -> TableDictionary:
    made = TableDictionary()
    for word in words:
        made.add_symbol(word)
    return made


def test_a_mask_is_the_last_entry_and_there_is_one():
    ours = dictionary("a", "b")
    assert ours.of_data() is ours
    assert ours.add_mask() == ours.add_mask() == len(ours) - 1 == 6
    assert ours[6] == MASK and ours.string([4, 6, 5]) == f"a {MASK} b"


def test_the_datas_dictionary_is_still_to_be_had():
    ours, datas = dictionary("a", "b"), dictionary("a", "b")
    ours.add_mask()
    found = ours.of_data()
    assert found == datas and fingerprint(found) == fingerprint(datas) and found.count == datas.count
    assert found.mask_index is None and ours[6] == MASK  # ours stays as it is
    assert found.add_mask() == 6


def test_a_mask_among_the_datas_words_is_refused():
    with pytest.raises(UserError, match="has it as entry 5; call that entry something else"):
        dictionary("a", MASK).add_mask()


def test_joined_dictionaries_are_joined_with_a_mask_too():
    source, target = dictionary("a", "b"), dictionary("a", "b")
    target.add_mask()
    check_joined(source, target)
    other = dictionary("a", "c", "d")
    other.add_mask()
    with pytest.raises(UserError, match="source's 6 and the target's 7 entries"):
        check_joined(source, other)


def configuration(data: Path, arch: str, flags: list[str]) -> Any:
    usual = [arg for arg in map(str, training(data, data, arch=arch)) if arg not in TINY]
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [*usual, *flags]))


def test_classes_are_found_as_fairseq_finds_them():
    assert class_of(Namespace(arch="nat_toy")) is models.MODEL_REGISTRY["glancing"]
    diffusion = models.MODEL_REGISTRY["diffusion"]
    assert class_of(Namespace(_name="diffusion")) is class_of({"dinoiser_toy": None}) is diffusion
    with pytest.raises(UserError, match="'no_such_model', which is not registered here; pass the --user-dir"):
        class_of(Namespace(_name="no_such_model"))


def words_of(model: Any) -> int:
    """Of the embeddings of the target's words."""
    table = model.translator.decoder.words if hasattr(model.translator, "decoder") else model.translator.state
    return len(table.weight)


def test_models_of_one_task_see_the_dictionary_they_need(data: Path):
    masked = configuration(data, "nat_toy", TINY_BLOCKS)
    gaussian = configuration(data, "dinoiser_toy", TINY)
    left_to_right = configuration(data, "transformer", AR.split())
    task = tasks.setup_task(gaussian.task)
    printer, words, state = task.target_dictionary, len(task.target_dictionary), task.state_dict()
    assert words_of(task.build_model(gaussian.model)) == len(printer) == words

    for _ in range(2):
        model = task.build_model(masked.model)
        assert model.translator.alignment.symbols.mask == words and words_of(model) == words + 1
        assert task.target_dictionary is printer and printer[words] == MASK  # what prints has a reference to it

    assert words_of(task.build_model(gaussian.model)) == words
    teacher = task.build_model(left_to_right.model)
    assert teacher.decoder.embed_tokens.num_embeddings == words
    teacher.load_state_dict(teacher.state_dict())  # sizes that are checked when it is loaded
    assert task.target_dictionary is printer and len(printer) == words + 1

    assert task.state_dict() == state
    task.load_state_dict(state)


def test_a_failed_build_leaves_the_task_its_dictionary(data: Path):
    gaussian = configuration(data, "dinoiser_toy", TINY)
    task = tasks.setup_task(gaussian.task)
    task.build_model(configuration(data, "nat_toy", TINY_BLOCKS).model)
    gaussian.model.heads = 3
    with pytest.raises(UserError, match="--heads 3"):
        task.build_model(gaussian.model)
    assert task.target_dictionary.mask_index is not None
