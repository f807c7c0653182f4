from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.corpus import draw_corpus, read_hypotheses, read_language, read_split, write_corpus
from fairseq_diffusion.toy.language import Language

ALL_VALID = {f"{split}.{register}.yy" for split in ("valid", "test") for register in ("formal", "informal")}
FILES = {"train.xx", "train.yy", "valid.xx", "valid.yy", "test.xx", "test.yy", "language.json", *ALL_VALID}
SMALL = {"nouns": 6, "verbs": 4, "adjectives": 4, "adverbs": 2}


def write(directory: Path, size: int = 300, force: bool = False) -> Language:
    language = Language(**SMALL)
    write_corpus(directory, language, size=size, valid_size=20, test_size=50, force=force)
    return language


def test_files_and_sizes(tmp_path: Path):
    write(tmp_path / "a" / "b")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == FILES
    sizes = {name: len(read_split(tmp_path / "a" / "b", name).sources) for name in ("train", "valid", "test")}
    assert sizes == {"train": 300, "valid": 20, "test": 50}


def test_every_valid_translation_is_in_one_of_two_files(tmp_path: Path):
    language, split = write(tmp_path), read_split(tmp_path, "test")
    files = [(tmp_path / f"test.{register}.yy").read_text().splitlines() for register in ("formal", "informal")]
    pairs = list(zip(*files))
    assert [sorted(set(pair)) for pair in pairs] == [sorted(language.translations(source)) for source in split.sources]
    assert {len(set(pair)) for pair in pairs} == {1, 2}
    assert all(reference in pair for reference, pair in zip(split.references, pairs))


def test_what_is_written_is_what_is_read(tmp_path: Path):
    corpus = write_corpus(tmp_path, Language(**SMALL), size=30, valid_size=5, test_size=5)
    assert {name: read_split(tmp_path, name) for name in corpus} == corpus
    assert read_language(tmp_path).options == Language(**SMALL).options


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in FILES)


def test_references_are_valid_and_both_registers_occur(tmp_path: Path):
    language = write(tmp_path)
    split = read_split(tmp_path, "train")
    choices = [language.translations(source) for source in split.sources]
    picks = [options.index(reference) for options, reference in zip(choices, split.references) if len(options) > 1]
    assert all(reference in options for options, reference in zip(choices, split.references))
    assert 0.35 < sum(picks) / len(picks) < 0.65


def test_no_source_occurs_twice_in_any_split():
    corpus = draw_corpus(Language(**SMALL), {"train": 2000, "valid": 100, "test": 100})
    sources = [source for split in corpus.values() for source in split.sources]
    assert len(sources) == len(set(sources)) == 2200


def test_the_size_of_train_leaves_the_test_set_alone():
    short, long = (draw_corpus(Language(), {"train": size, "valid": 5, "test": 20}) for size in (5, 50))
    assert short["test"] == long["test"] and short["valid"] == long["valid"]


def test_a_language_that_runs_out_of_sentences_says_so(monkeypatch: pytest.MonkeyPatch):
    language = Language(**SMALL)
    only = language.sample(random.Random(0))
    monkeypatch.setattr(language, "sample", lambda rng: only)
    with pytest.raises(UserError, match="too few sentences: no new one after 1"):
        draw_corpus(language, {"train": 5, "valid": 1, "test": 1})


def test_a_full_directory_is_not_touched_unless_forced(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    write(tmp_path, force=True)
    write(tmp_path, size=10, force=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert len(read_split(tmp_path, "train").sources) == 10


def test_a_file_is_no_directory(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "file", force=True)


def test_an_empty_split_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(UserError, match="the train split needs at least 1 sentence, not 0"):
        write(tmp_path / "new", size=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps({"moods": 3}), json.dumps({"nouns": "many"})])
def test_broken_options_are_told(tmp_path: Path, text: str):
    (tmp_path / "language.json").write_text(text)
    with pytest.raises(UserError, match="does not hold the options"):
        read_language(tmp_path)


def test_a_missing_corpus_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="is not there"):
        read_language(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        read_split(tmp_path, "test")


def test_sides_of_unequal_length_are_told(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "test.yy").write_text("one line\n")
    with pytest.raises(UserError, match="50 source and 1 target lines"):
        read_split(tmp_path, "test")


def hypotheses(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "hyp").write_text(text)
    return read_hypotheses(tmp_path / "hyp")


def test_plain_hypotheses_lose_bpe_and_keep_empty_lines(tmp_path: Path):
    assert hypotheses(tmp_path, "a@@ b c\n\nd@@ e@@\n") == ["ab c", "", "de"]


GENERATED = """\
2026-01-01 00:00:00 | INFO | fairseq_cli.generate | loading model(s)
S-2\tmi
T-2\tlast
H-2\t-0.1\tla@@ st
P-2\t-0.1 -0.1
H-0\t-0.2\tfirst
H-0\t-0.4\tsecond best
H-1\t-0.3\t
Generate test with beam=5: BLEU4 = 0.00
"""


def test_generated_hypotheses_are_sorted_and_the_first_of_an_n_best_list_is_taken(tmp_path: Path):
    assert hypotheses(tmp_path, GENERATED) == ["first", "", "last"]


def test_detokenised_lines_go_before_hypotheses(tmp_path: Path):
    lines = "H-0\t-0.2\tx y\nD-0\t-0.2\txy\nH-0\t-0.9\tw x\nD-0\t-0.9\tworse\n"
    assert hypotheses(tmp_path, lines) == ["xy"]


def test_a_gap_among_generated_sentences_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="no H- line for 1 sentences, such as 1"):
        hypotheses(tmp_path, "H-0\t-0.2\ta\nH-2\t-0.2\tc\n")


def test_generated_output_without_hypotheses_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="no H- line"):
        hypotheses(tmp_path, "S-0\ta\nT-0\tb\n")


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_an_empty_file_is_told(tmp_path: Path, text: str):
    with pytest.raises(UserError, match="is empty"):
        hypotheses(tmp_path, text)


def test_a_file_that_is_no_text_is_told(tmp_path: Path):
    (tmp_path / "hyp").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_hypotheses(tmp_path / "hyp")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_hypotheses(tmp_path)
