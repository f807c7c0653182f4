"""Damaged files of a data-bin, of what lies beside a checkpoint, and checkpoints: each is read as it stands, or refused
by a sentence that names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from damage import damaged, other_json, part_of_the_examples, works_or_says
from fairseq import checkpoint_utils, tasks
from hypothesis import given
from hypothesis import strategies as st
from stored_models import DATA, checkpoint

import fairseq_diffusion
from fairseq_diffusion.api import generation_config
from fairseq_diffusion.files.preparation import Preparation

SIDES = [DATA / f"test.a-b.{side}.{end}" for side in "ab" for end in ("bin", "idx")]
DICTIONARIES = [DATA / f"dict.{side}.txt" for side in "ab"]


@pytest.fixture(scope="module")
def data_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(DATA, tmp_path_factory.mktemp("damaged") / "data"))


@pytest.fixture(scope="module")
def read_data(data_bin: Path) -> Callable[[], Any]:
    """The test set as fairseq-generate has it, and the sizes of a model that is built for these dictionaries."""
    fairseq_diffusion.load()
    cfg = generation_config(data_bin, Preparation("a", "b"), [])
    model = checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint("dinoiser")))["cfg"].model

    def read() -> Any:
        task = tasks.setup_task(cfg.task)
        task.build_model(model)
        task.load_dataset("test")
        dataset = task.dataset("test")
        batch = dataset.collater([dataset[i] for i in range(len(dataset))])
        return batch["net_input"]["src_tokens"].tolist(), batch["target"].tolist()

    return read


@given(st.data())
def test_a_data_bin(data_bin: Path, read_data: Callable[[], Any], count: Callable[..., None], data: st.DataObject):
    good = read_data()
    path = data.draw(st.sampled_from([*SIDES, *DICTIONARIES]))
    whole = path.read_bytes()
    written = data.draw(damaged(whole))
    own = data_bin / path.name
    try:
        own.write_bytes(written)
        found = works_or_says(read_data, str(data_bin))
    finally:
        own.write_bytes(whole)
    assert found is None or found == good or path.suffix == ".bin"  # which may hold other words of the dictionary
    count("damaged files of a data-bin")


# -- beside a checkpoint


LEARNT = "#version: 0.2\nw 1</w>\nt h\nth e</w>\n"
PREPARED = {"source": "a", "target": "b", "tokenizer": "moses", "split_dashes": True, "lowercase": False, "bpe": "none"}
TEXTS = ["a b", "the H h@@", "w1, (x)", ""]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint with all that translating takes."""
    folder = tmp_path_factory.mktemp("beside")
    for path in (checkpoint("glat"), *DICTIONARIES):
        shutil.copy(path, folder)
    (folder / "bpe.codes").write_text(LEARNT)
    (folder / "preprocessing.json").write_text(json.dumps({**PREPARED, "bpe": "subword_nmt"}))
    return folder


def translated(path: Path) -> list[str]:
    model = fairseq_diffusion.load(path, data=DATA, device="cpu")
    assert model is not None
    return [translation.candidates[0].text for translation in model.translate(TEXTS, batch_size=4)]


@part_of_the_examples(2)
@given(st.data())
def test_what_lies_beside_a_checkpoint(beside: Path, count: Callable[..., None], data: st.DataObject):
    path = beside / data.draw(st.sampled_from(["bpe.codes", "preprocessing.json"]))
    whole = path.read_bytes()
    others = other_json(PREPARED) if path.suffix == ".json" and data.draw(st.booleans()) else damaged(whole)
    try:
        path.write_bytes(data.draw(others))
        works_or_says(lambda: translated(beside / "glat.pt"), str(path), path.name, "has no dictionary for")
    finally:
        path.write_bytes(whole)
    count("damaged files beside a checkpoint")


@pytest.fixture(scope="module")
def completing() -> Any:
    return fairseq_diffusion.load(checkpoint("cmlm"), data=DATA, device="cpu")


@given(st.data())
def test_any_template(completing: Any, count: Callable[..., None], data: st.DataObject):
    text = data.draw(st.text(max_size=30) | damaged(b"___ H h@@ ___ SIR .").map(lambda b: b.decode(errors="replace")))
    found = works_or_says(lambda: completing.complete(["a b"], [text])[0].candidates[0].tokens, "template", "longest")
    assert found is None or {word for word in text.split() if word != "___"} <= set(found)
    count("templates")
