from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.grammar import parse
from fairseq_diffusion.toy.language import Language
from fairseq_diffusion.toy.multilingual import directions, draw_texts, write_languages

SMALL = {"nouns": 6, "verbs": 4, "adjectives": 4, "adverbs": 2}
SIZES = {"train": 60, "valid": 10, "test": 20}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def write(directory: Path, languages: int = 3) -> Path:
    write_languages(directory, Language(**SMALL, ambiguity=1.0), languages, SIZES)
    return directory


def test_pairs_without_xx_are_zero_shot():
    found = {str(way): way.zero_shot for way in directions(3)}
    assert found == {
        "xx-yy": False, "xx-zz": False, "yy-xx": False, "zz-xx": False, "yy-zz": True, "zz-yy": True
    }  # fmt: skip
    assert [way.zero_shot for way in directions(4)] == [False] * 6 + [True] * 6


def test_sentences_of_two_languages_differ_in_their_words_alone():
    texts = draw_texts(Language(**SMALL, ambiguity=1.0), 4, SIZES)
    words = {
        name: {word for text in texts["train"] for word in text[name].split()} for name in ("xx", "yy", "zz", "ww")
    }
    assert not any(words[one] & words[other] for one in words for other in words if one < other)
    for text in texts["test"]:
        assert len(text["yy"].split()) == len(text["zz"].split()) == len(text["ww"].split())
    pairs = {
        (a, b) for split in texts.values() for text in split for a, b in zip(text["yy"].split(), text["zz"].split())
    }
    assert len(dict(pairs)) == len({b: a for a, b in pairs}) == len(pairs)  # word by word, one to one


def test_translations_into_yy_are_the_languages_own():
    language = Language(**SMALL, ambiguity=1.0)
    for text in draw_texts(language, 3, SIZES)["test"]:
        assert text["yy"] == parse(text["xx"], language.lexicon).translations()[0]
        assert len(language.translations(text["xx"])) == 2  # of which yy is the formal one


def test_the_files_of_a_corpus(tmp_path: Path):
    folder = write(tmp_path / "a")
    tests = {f"test.{way}.{side}" for way in directions(3) for side in ("src", "tgt")}
    assert {path.name for path in folder.iterdir()} == tests | {
        f"{s}.{e}" for s in ("train", "valid") for e in ("src", "tgt")
    }
    sources, targets = lines(folder / "train.src"), lines(folder / "train.tgt")
    assert len(sources) == len(targets) == 2 * SIZES["train"]
    assert {source.split()[0] for source in sources} == {"<2xx>", "<2yy>", "<2zz>"}
    assert not any("<" in target for target in targets)
    again = write(tmp_path / "b")
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in tests)


def test_copies_are_of_the_languages_that_else_are_never_a_target_of_their_own_sources(tmp_path: Path):
    write_languages(tmp_path, Language(**SMALL, ambiguity=1.0), 3, SIZES, copies=True)
    pairs = list(zip(lines(tmp_path / "train.src"), lines(tmp_path / "train.tgt")))
    copied = [source.split()[0] for source, target in pairs if source.split(maxsplit=1)[1] == target]
    assert len(pairs) == 3 * SIZES["train"]
    assert copied.count("<2yy>") == copied.count("<2zz>") == len(copied) / 2 == SIZES["train"] / 2


def test_what_is_zero_shot_is_in_no_training_pair(tmp_path: Path):
    """Neither its sentences in any language, nor the pair of languages in any sentence."""
    folder = write(tmp_path)
    of_xx = {word for text in lines(folder / "test.yy-xx.tgt") for word in text.split()}
    said = {source.split(maxsplit=1)[1] for source in lines(folder / "train.src")} | set(lines(folder / "train.tgt"))
    for way in directions(3):
        assert not said & set(lines(folder / f"test.{way}.tgt"))
    for source, target in zip(lines(folder / "train.src"), lines(folder / "train.tgt")):
        assert of_xx & {*source.split(), *target.split()}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = "--size 20 --valid-size 5 --test-size 7 --nouns 6 --verbs 4".split()
    assert main(["toy", "generate", "--languages", "3", "--out", str(tmp_path / "a"), *flags]) == 0
    assert "zero-shot   yy-zz, zz-yy" in capsys.readouterr().out
    assert len(lines(tmp_path / "a" / "test.zz-yy.src")) == 7
    assert main(["toy", "generate", "--languages", "3", "--out", str(tmp_path / "a"), *flags]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--languages 5", "has 3 to 4 languages, not 5"),
        ("--languages 3 --ambiguity 0.2", "--ambiguity is of two languages"),
    ],
)
def test_mistakes_end_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, words: str):
    assert main(["toy", "generate", "--out", str(tmp_path / "a"), *flags.split()]) == 2
    assert words in capsys.readouterr().err
    with pytest.raises(UserError, match="at least 1 sentence"):
        write_languages(tmp_path / "b", Language(**SMALL, ambiguity=1.0), 3, {**SIZES, "test": 0})
