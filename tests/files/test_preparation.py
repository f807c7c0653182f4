"""A checkpoint is found with what lies beside it, and text is prepared as it was for the training."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ENVIRONMENT, ROOT
from runs import train_teacher
from support import call, lines, read

import fairseq_diffusion
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.checkpoint import checkpoint_at

SENTENCES = ["W3 w1 w1, (w2)", "w5's w10 w7-w8."]


def load(path: Path, **more: Any) -> Any:
    return fairseq_diffusion.load(path, device="cpu", **more)


@pytest.fixture
def folder(checkpoint: Path, data: Path, tmp_path: Path) -> Path:
    """A checkpoint that can be moved: with its dictionaries beside it."""
    for file in (checkpoint, data / "dict.a.txt", data / "dict.b.txt"):
        shutil.copy(file, tmp_path)
    (tmp_path / checkpoint.name).rename(tmp_path / "average.pt")
    return tmp_path


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes of subword-nmt that join w and a 1 that ends a word, and nothing else."""
    path = tmp_path_factory.mktemp("codes") / "codes"
    path.write_text("#version: 0.2\nw 1</w>\n")
    return path


def says(folder: Path, **entries: Any) -> None:
    (folder / "preprocessing.json").write_text(json.dumps(entries))


# -- which checkpoint, which dictionaries


@pytest.mark.parametrize(
    "names, meant",
    [
        (["checkpoint7.pt"], "checkpoint7.pt"),
        (["checkpoint1.pt", "checkpoint_best.pt", "checkpoint_last.pt"], "checkpoint_best.pt"),
        (["average.pt", "checkpoint1.pt", "checkpoint_last.pt"], "average.pt"),
        (["average.pt", "checkpoint_best.pt"], "holds 2 checkpoints .average.pt, checkpoint_best.pt.; name the one"),
        (["checkpoint1.pt", "checkpoint_last.pt"], "holds 2 checkpoints"),
        ([], "holds no .*pt file"),
    ],
)
def test_a_folder_stands_for_one_checkpoint_or_is_refused(tmp_path: Path, names: list[str], meant: str):
    for name in names:
        (tmp_path / name).touch()
    if meant in names:
        assert checkpoint_at(tmp_path) == tmp_path / meant == checkpoint_at(tmp_path / meant)
        return
    with pytest.raises(UserError, match=meant):
        checkpoint_at(tmp_path)


def test_a_folder_is_moved_as_a_whole(folder: Path, checkpoint: Path, data: Path):
    """Where there is no data-bin, preprocessing.json has to name the languages."""
    state = read(folder / "average.pt")
    state["cfg"]["task"]["data"] = "gone"
    torch.save(state, folder / "average.pt")
    with pytest.raises(UserError, match="the languages of .*average.pt are not known; write them into preprocessing"):
        load(folder)
    says(folder, source="a", target="b")
    moved, original = load(folder), load(checkpoint)
    assert moved.task.cfg.data == str(folder) and original.task.cfg.data == str(data)
    assert (moved.task.cfg.source_lang, moved.task.cfg.target_lang) == ("a", "b")
    texts = ["w1 w2 w3", "w4"]
    assert [each.text for each in moved.translate(texts)] == [each.text for each in original.translate(texts)]


def test_dictionaries_of_other_data_are_refused(folder: Path, data: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(data / "dict.a.txt", other / "dict.b.txt")
    shutil.copy(data / "dict.a.txt", other)
    with pytest.raises(UserError, match="target dictionary of this data does not match the checkpoint's"):
        load(folder, data=other)


def test_no_dictionaries_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from fairseq_diffusion.files import checkpoint

    with pytest.raises(UserError, match="nor in the data-bin it was trained on .*gone.*; pass data=DATA-BIN"):
        checkpoint.dictionaries_for(folder / "bare" / "average.pt", None, "gone")
    with pytest.raises(UserError, match="there is no checkpoint .*absent.pt"):
        load(folder / "absent.pt")


# -- how text is prepared


def test_text_as_it_is(folder: Path):
    model = load(folder)
    assert model.preparation.encode(SENTENCES[0]) == SENTENCES[0]
    facts = model.describe()
    assert facts["tokenizer"] == facts["bpe"] == "none" and facts["lowercase"] is False
    assert facts["checkpoint"] == str(folder / "average.pt") and facts["kind"] == "diffusion"


def test_prepared_as_fairseq_interactive_does(folder: Path, codes: Path, data: Path):
    """Moses and BPE there and back; lower case comes between, where the public recipes have it."""
    shutil.copy(codes, folder / "bpe.codes")
    says(folder, source="a", target="b", tokenizer="moses", split_dashes=True, lowercase=True, bpe="subword_nmt")
    model = load(folder)
    translations = model.translate(SENTENCES, steps=3)
    typed = "".join(f"{sentence.lower()}\n" for sentence in SENTENCES)
    (folder / "input").write_text(typed)
    preparing = f"--tokenizer moses --bpe subword_nmt --bpe-codes {codes} --input {folder / 'input'}"
    usual = f"--path {folder / 'average.pt'} --source-lang a --target-lang b --iter-decode-max-iter 3 --cpu"
    user_dir = ["--user-dir", Path(fairseq_diffusion.__file__).parent, "--task", "diffusion_translation"]
    output = call("interactive", data, *user_dir, *preparing.split(), *usual.split())
    said = {kind: [found[0][-1] for found in lines(output, kind).values()] for kind in "SD"}
    prepared = [model.preparation.encode(sentence) for sentence in SENTENCES]
    assert prepared[0] == "w@@ 3 w1 w1 , ( w@@ 2 )"
    source = model.task.source_dictionary
    assert [source.string(source.encode_line(line, add_if_not_exist=False)) for line in prepared] == said["S"]
    assert [each.text for each in translations] == said["D"]


@pytest.mark.parametrize("dashes", [False, True])
def test_moses_is_that_of_the_recipes(folder: Path, dashes: bool, monkeypatch: pytest.MonkeyPatch):
    """Punctuation is normalised, and dashes are split only if that is said."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts/text"))
    import lines
    import moses
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    says(folder, source="a", target="b", tokenizer="moses", split_dashes=dashes)
    text = "„W1 – w2“ isn’t w7-w8… 10\u00a0000 Schiff\u00adfahrt a\rb\u200bc\ufeff"
    expected = moses.tokenised(lines.tidy(text), MosesPunctNormalizer("a"), MosesTokenizer("a"), dashes, lower=False)
    assert load(folder).preparation.encode(text) == expected
    assert ("@-@" in expected) == dashes and "„" not in expected and expected.endswith("10 000 Schifffahrt a b c")


def test_codes_alone_are_applied_and_a_tokenizer_is_asked_for(folder: Path, codes: Path):
    shutil.copy(codes, folder / "bpe.a.codes")
    assert load(folder).preparation.encode("w1 w2,") == "w1 w@@ 2@@ ,"
    assert load(folder, tokenizer="moses").preparation.encode("w1 w2,") == "w1 w@@ 2 ,"
    assert load(folder).preparation.decode("W@@ 1 W2") == "W1 W2"
    says(folder, bpe="none")
    assert load(folder).preparation.encode("w1 w2,") == "w1 w2,"


@pytest.mark.parametrize(
    "entries, words",
    [
        ({"target": "${x}"}, "has target '\\$\\{x\\}', which is no name of a language"),
        ({"tokenizer": "jieba"}, "has tokenizer 'jieba'; choose 'moses' or 'none'"),
        ({"bpe": "subword_nmt"}, "has a BPE, but there is no bpe.codes"),
        ({"truecase": True}, "the entry 'truecase', which is unknown"),
    ],
)
def test_what_preprocessing_cannot_say(folder: Path, entries: dict[str, Any], words: str):
    says(folder, **entries)
    with pytest.raises(UserError, match=words):
        load(folder)


def test_targets_are_prepared_by_the_rules_of_their_language(folder: Path, codes: Path):
    """Of two files of codes each language has its own; one file without a language is for both."""
    (folder / "bpe.b.codes").write_text("#version: 0.2\nW 1</w>\n")
    shutil.copy(codes, folder / "bpe.a.codes")
    says(folder, source="a", target="b", lowercase=False)
    preparation = load(folder).preparation
    assert preparation.encode("w1 W1") == "w1 W@@ 1"
    assert preparation.of_target.encode("w1 W1") == "w@@ 1 W1"
    assert (preparation.of_target.source, preparation.of_target.target) == ("b", "a")
    (folder / "bpe.b.codes").unlink()
    with pytest.raises(UserError, match="bpe.a.codes are the BPE codes of a, .* as bpe.b.codes"):
        load(folder).preparation.of_target.encode("w1")
    (folder / "bpe.a.codes").rename(folder / "bpe.codes")
    assert load(folder).preparation.of_target.encode("w1 W1") == "w1 W@@ 1"


def test_broken_preprocessing_and_two_codes(folder: Path, codes: Path):
    for name in ("bpe.codes", "code"):
        shutil.copy(codes, folder / name)
    with pytest.raises(UserError, match="bpe.codes and code: which BPE codes are meant"):
        load(folder)
    (folder / "preprocessing.json").write_text("{")
    with pytest.raises(UserError, match="is not a JSON object"):
        load(folder)


@pytest.mark.parametrize("text", ["null", "[]", '{"source": 7}', '{"target": "../.."}', '{"lowercase": "yes"}', "["])
def test_preprocessing_of_other_types(folder: Path, text: str):
    (folder / "preprocessing.json").write_text(text)
    with pytest.raises(UserError, match="preprocessing.json"):
        load(folder)


@pytest.mark.parametrize("text", ["#version: x\nw 1\n", "#version: 0.9\nw 1\n", "w 1 2\n", "w\n"])
def test_codes_that_subword_nmt_exits_at(folder: Path, text: str, capsys: pytest.CaptureFixture[str]):
    (folder / "bpe.codes").write_text(text)
    with pytest.raises(UserError, match="bpe.codes cannot be read .*two pieces in each line"):
        load(folder).translate(["w1"])
    assert "Error" not in capsys.readouterr().err


# -- the package itself


def test_importing_is_cheap():
    code = "import sys, fairseq_diffusion; print(sorted({'torch', 'fairseq', 'omegaconf'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr
    assert fairseq_diffusion.load() is None


def test_the_documents_examples_run(
    folder: Path, codes: Path, data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    """In a folder that holds what they name, with the tests' own model."""
    place = tmp_path_factory.mktemp("documents")
    for name in ("model", "DATA-BIN"):
        (place / name).mkdir()
        shutil.copy(data / "dict.a.txt", place / name / "dict.de.txt")
        shutil.copy(data / "dict.b.txt", place / name / "dict.en.txt")
    shutil.copy(folder / "average.pt", place / "model")
    shutil.copy(codes, place / "model/bpe.codes")
    shutil.copy(train_teacher(data, place / "teacher"), place / "transformer.pt")
    document = (ROOT / "docs/python.md").read_text()
    (place / "model/preprocessing.json").write_text(re.search(r'^ {4}(\{"source.*)$', document, re.MULTILINE)[1])
    monkeypatch.chdir(place)
    found: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        exec(block, found)
    assert len(found["translations"]) == 2 and found["facts"]["tokenizer"] == "moses" and found["best"].calls == 20
    assert (place / "page.html").read_text().count("<article") == 1
