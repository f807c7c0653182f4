from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.toy.corpus import read_split

OPTIONS = {"seed": 9, "nouns": 8, "verbs": 5, "adjectives": 4, "adverbs": 3, "ambiguity": 0.25}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    flags = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
    sizes = ["--size", "200", "--valid-size", "10", "--test-size", "30"]
    assert main(["toy", "generate", "--out", str(tmp_path / "toy"), *flags, *sizes]) == 0
    return tmp_path / "toy"


def scored(corpus: Path, hypotheses: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    (corpus.parent / "hyp").write_text(hypotheses)
    capsys.readouterr()
    code = main(["toy", "score", "--corpus", str(corpus), "--hyp", str(corpus.parent / "hyp"), "--json", *options])
    assert code == 0
    return json.loads(capsys.readouterr().out)


def test_every_option_arrives(corpus: Path):
    assert json.loads((corpus / "language.json").read_text()) == OPTIONS
    assert [len(read_split(corpus, name).sources) for name in ("train", "valid", "test")] == [200, 10, 30]


def test_generating_twice_needs_force(corpus: Path, capsys: pytest.CaptureFixture[str]):
    before = (corpus / "test.xx").read_bytes()
    sizes = ["--size", "20", "--valid-size", "5", "--test-size", "5"]
    assert main(["toy", "generate", "--out", str(corpus), *sizes]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (corpus / "test.xx").read_bytes() == before
    assert main(["toy", "generate", "--out", str(corpus), *sizes, "--force"]) == 0
    assert len(read_split(corpus, "test").sources) == 5
    assert "20 sentences" in capsys.readouterr().out


def test_plain_hypotheses(corpus: Path, capsys: pytest.CaptureFixture[str]):
    result = scored(corpus, (corpus / "test.yy").read_text(), capsys)
    assert result["valid"] == 1 and result["mixed"] == 0 and result["sentences"] == 30
    assert scored(corpus, (corpus / "valid.yy").read_text(), capsys, "--split", "valid")["sentences"] == 10


def test_the_output_of_generate_shuffled_with_an_n_best_list(corpus: Path, capsys: pytest.CaptureFixture[str]):
    references = read_split(corpus, "test").references
    lines = [f"H-{i}\t-0.1\t{text}\nH-{i}\t-0.9\tworse" for i, text in reversed(list(enumerate(references)))]
    assert scored(corpus, "\n".join(lines), capsys)["valid"] == 1


def test_the_table_for_people(corpus: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["toy", "score", "--corpus", str(corpus), "--hyp", str(corpus / "test.yy")]) == 0
    shown = capsys.readouterr().out
    assert "100.0%" in shown and "100.00" in shown and "nrefs:" in shown


def test_an_absent_share_is_shown_as_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sizes = ["--size", "5", "--valid-size", "5", "--test-size", "5", "--ambiguity", "0"]
    assert main(["toy", "generate", "--out", str(tmp_path / "toy"), *sizes]) == 0
    assert main(["toy", "score", "--corpus", str(tmp_path / "toy"), "--hyp", str(tmp_path / "toy" / "test.yy")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mixed"))
    assert row.endswith(" -")


@pytest.mark.parametrize(
    ("hypotheses", "message"), [("just one line\n", "1 translations for 30 source sentences"), ("", "is empty")]
)
def test_mistakes_end_in_a_sentence(corpus: Path, capsys: pytest.CaptureFixture[str], hypotheses: str, message: str):
    (corpus.parent / "hyp").write_text(hypotheses)
    assert main(["toy", "score", "--corpus", str(corpus), "--hyp", str(corpus.parent / "hyp")]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_corpus_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["toy", "score", "--corpus", str(tmp_path), "--hyp", "hyp"]) == 2
    assert "is not there" in capsys.readouterr().err


def test_help_names_both_actions(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["toy", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "generate" in shown and "score" in shown
