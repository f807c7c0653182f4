"""The command: from real outputs of fairseq-generate to tables, files and sentences about mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import SIZES
from runs import RERANKER, reported, train_teacher
from support import lines

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.reporting import read

N = SIZES["test"]


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    return train_teacher(data, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def raw(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """References as people write them: the full stop is not a word."""
    path = tmp_path_factory.mktemp("raw") / "test.b"
    path.write_text((corpus / "test.b").read_text().replace(" .", "."))
    return path


@pytest.fixture(scope="module")
def results(data: Path, teacher: Path, checkpoint: Path, raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of an autoregressive system, of ours, and of ours with what the table has to note."""
    folder, references = tmp_path_factory.mktemp("results"), f"--raw-reference {raw}"
    reported(data, teacher, folder / "AR", f"--beam 2 {references}", steps="")
    reported(data, checkpoint, folder / "plain", references)
    reported(data, checkpoint, folder / "oracle", "--oracle-length")
    reported(data, f"{checkpoint}:{teacher}", folder / "rescored", f"--noise-beam 2 {RERANKER}")
    skipping = "--skip-invalid-size-inputs-valid-test --max-source-positions 9"
    reported(data, checkpoint, folder / "short", f"{skipping} {references}")
    return folder


def score(*arguments: Any) -> int:
    return main(["score", *map(str, arguments)])


def scored(folder: Path, *arguments: Any) -> dict[str, Any]:
    assert score(*arguments, "--json", folder / "table.json") == 0
    return json.loads((folder / "table.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert score(*arguments) == 2
    output, error = capsys.readouterr()
    assert output == "" and "Traceback" not in error
    return error


# -- what it says


def test_every_row_says_what_it_is(results: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = ("AR", "plain", "oracle", "rescored", "short")
    found = scored(tmp_path, "--hyp", *(results / name for name in names), "--ref", raw, "--samples", 50)
    rows = {row["name"]: row for row in found["rows"]}
    assert tuple(rows) == names and found["language"] == "b" and found["sentences"] == N
    assert rows["oracle"]["notes"][0] == "REFERENCE LENGTHS USED" and rows["rescored"]["notes"][0] == "rescored by AR"
    skipped = rows["short"]["skipped"]
    assert 0 < skipped < N and f"{skipped} SKIPPED, scored as empty" in rows["short"]["notes"]
    assert rows["plain"]["steps"] == 3 and rows["plain"]["calls"] == 3
    assert rows["plain"]["system"] == "dinoiser_toy" and "speed" not in rows["plain"]["report"]
    assert found["significance"]["p"]["sacrebleu"]["AR"]["plain"] is not None
    shown = capsys.readouterr().out
    assert "REFERENCE LENGTHS USED" in shown and "paired bootstrap, 50 samples, seed 12345" in shown
    assert all(f"\n{name} " in shown for name in names) and found["signatures"]["ter"] in shown


def test_it_agrees_with_the_report_of_the_run(results: Path, raw: Path, tmp_path: Path):
    names = ("AR", "plain", "short")
    found = scored(tmp_path, "--hyp", *(results / name for name in names), "--ref", raw)
    for name, row in zip(names, found["rows"]):
        said = read(results / name / "generate-test.json")["scores"]
        assert row["sacrebleu"] == pytest.approx(said["sacrebleu"]["bleu"], abs=1e-12)
        assert row["brevity_penalty"] == said["sacrebleu"]["brevity_penalty"]
        assert found["signatures"]["sacrebleu"] == said["sacrebleu"]["signature"]
        if name != "short":  # the report's tokenised BLEU is of the sentences decoded
            assert row["tokenised"] == pytest.approx(said["tokenised"]["bleu"], abs=1e-12)
    assert found["rows"][1]["sacrebleu"] > 0


def test_calls_of_an_autoregressive_system_are_its_tokens_and_the_end(results: Path, raw: Path, tmp_path: Path):
    found = scored(tmp_path, "--hyp", results / "AR", "--ref", raw)
    output = lines((results / "AR" / "generate-test.txt").read_text(), "P")
    assert found["rows"][0]["calls"] == sum(len(scores[0][0].split()) for scores in output.values()) / N
    assert found["significance"] is None


def test_two_runs_print_the_same(results: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    printed = []
    for _ in range(2):
        arguments = (
            "--hyp",
            results / "AR",
            results / "plain",
            "--ref",
            raw,
            "--markdown",
            tmp_path / "t.md",
            "--force",
        )
        scored(tmp_path, *arguments)
        printed.append((capsys.readouterr().out, *(path.read_text() for path in sorted(tmp_path.iterdir()))))
    assert printed[0] == printed[1] and len(printed[0]) == 3
    assert "| system | sacreBLEU |" in printed[0][1 + sorted(("table.json", "t.md")).index("t.md")]


# -- flags


def test_flags(results: Path, raw: Path, tmp_path: Path):
    (tmp_path / "second").write_text(raw.read_text().lower())
    flags = "--language de_DE --tokenize intl --lowercase --compound-split --samples 0".split()
    systems = [f"a={results / 'AR'}", "--hyp", f"b={results / 'plain'}"]
    found = scored(tmp_path, "--hyp", *systems, "--ref", raw, "--ref", tmp_path / "second", *flags)
    assert [row["name"] for row in found["rows"]] == ["a", "b"] and found["language"] == "de"
    said = found["signatures"]["sacrebleu"]
    assert all(part in said for part in ("nrefs:2|", "case:lc", "tok:intl"))
    assert found["significance"] is None and found["rows"][0]["compound_split"] is not None


def test_words_are_scored_by_their_frequency(
    results: Path, raw: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """In the text, the Markdown and the JSON; the training text has no word of the test set that it has not seen."""
    page = tmp_path / "page.md"
    arguments = ["--hyp", results / "AR", results / "plain", "--ref", raw, "--frequencies", corpus / "train.b"]
    found = scored(tmp_path, *arguments, "--buckets", "1,20,30", "--markdown", page)
    facts, rows = found["frequencies"], found["rows"]
    assert facts["file"] == str(corpus / "train.b") and facts["buckets"] == ["0", "1-19", "20-29", "30+"]
    words = (corpus / "test.b").read_text().split()
    assert facts["reference_words"][0] == 0 and sum(facts["reference_words"]) == len(words)
    for row in rows:
        assert len(row["by_frequency"]["recall"]) == 4 and row["by_frequency"]["recall"][0] is None
        assert row["by_frequency"]["recall"][3] > 0
    shown = capsys.readouterr().out
    assert "| AR | recall | - |" in page.read_text() and "words by how often they are in" in shown
    assert "by_frequency" not in scored(tmp_path / "..", *arguments[:5], "--force")["rows"][0]
    assert scored(tmp_path, *arguments, "--force")["frequencies"]["buckets"] == [
        "0",
        "1-9",
        "10-99",
        "100-999",
        "1000+",
    ]


def test_compounds_are_split_unasked_from_english_to_german(
    results: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for languages, asked in (("en-de", True), ("de-en", False)):
        folder = tmp_path / languages
        folder.mkdir()
        (folder / "generate-test.txt").write_text((results / "AR" / "generate-test.txt").read_text())
        report = read(results / "AR" / "generate-test.json")
        report["data"]["languages"] = languages
        (folder / "generate-test.json").write_text(json.dumps(report))
        assert (scored(folder, "--hyp", folder, "--ref", raw)["rows"][0]["compound_split"] is not None) is asked
    both = ("--hyp", tmp_path / "en-de", tmp_path / "de-en", "--ref", raw)
    assert "have different target languages (de, en)" in refused(capsys, *both)


def test_capitals_and_twins_are_told(raw: Path, tmp_path: Path):
    for name, text in (("low", raw.read_text().lower()), ("twin", raw.read_text().lower()), ("same", raw.read_text())):
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in ("low", "twin", "same")]
    low, twin, same = scored(tmp_path, "--hyp", *files, "--ref", raw)["rows"]
    assert low["notes"] == ["no capitals, but the references have them (--lowercase)", "the same as twin"]
    assert same["notes"] == ["the same as the references"] and same["sacrebleu"] == pytest.approx(100)
    folder = tmp_path / "lower"
    folder.mkdir()
    assert scored(folder, "--hyp", files[0], "--ref", raw, "--lowercase")["rows"][0]["notes"] == []


def test_comet(
    results: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "comet-score").write_text("#!/bin/sh\nprintf 'x\\tscore: 0.25\\ny\\tscore: -1.5\\n'\n")
    (tmp_path / "comet-score").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    arguments = [
        "--hyp",
        results / "AR",
        results / "plain",
        "--ref",
        raw,
        "--comet",
        "a/model",
        "--src",
        tmp_path / "src",
    ]
    (tmp_path / "src").write_text("source\n" * N)
    found = scored(tmp_path, *arguments)
    assert [row["comet"] for row in found["rows"]] == [0.25, -1.5] and found["signatures"]["comet"] == "a/model"
    (tmp_path / "src").write_text("source\n")
    assert f"src has 1 lines, but there are {N} references" in refused(capsys, *arguments)


# -- mistakes


def test_outputs_are_not_replaced_unasked(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "hyp").write_text(raw.read_text())
    (tmp_path / "old").write_text("mine")
    arguments = ("--hyp", tmp_path / "hyp", "--ref", raw)
    for flag in ("--json", "--markdown"):
        assert "already exists" in refused(capsys, *arguments, flag, tmp_path / "old")
        assert "named twice" in refused(capsys, *arguments, flag, tmp_path / "hyp", "--force")
    assert (tmp_path / "old").read_text() == "mine" and (tmp_path / "hyp").read_text() == raw.read_text()
    assert score(*arguments, "--json", tmp_path / "old", "--force") == 0
    assert json.loads((tmp_path / "old").read_text())["sentences"] == N


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hyp", "{hyp}", "{hyp}", "--ref", "{raw}"], "named twice, by --hyp and by --hyp"),
        (["--hyp", "{raw}", "--ref", "{raw}"], "named twice, by --hyp and by --ref"),
        (["--hyp", "A={hyp}", "A={other}", "--ref", "{raw}"], "several systems are called A"),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--samples", "-1"], "--samples -1 is negative"),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--comet", "m"], "go together"),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--src", "{other}"], "go together"),
        (
            ["--hyp", "{hyp}", "--ref", "{raw}", "{third}", "--src", "{other}", "--comet", "m"],
            "COMET takes one reference",
        ),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--json", "{folder}"], "is a folder"),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--buckets", "1,5"], "--buckets 1,5 are of --frequencies FILE"),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--frequencies", "{raw}"], "named twice, by --ref and by --frequencies"),
        (["--hyp", "{hyp}", "--ref", "{raw}", "--frequencies", "{other}", "--buckets", "5,1"], "--buckets '5,1'"),
        (["--hyp", "{folder}/nowhere", "--ref", "{raw}"], "--hyp .*nowhere cannot be read"),
    ],
)
def test_mistakes(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    places = {name: tmp_path / name for name in ("hyp", "other", "third")}
    for path in places.values():
        path.write_text(raw.read_text())
    found = refused(capsys, *(word.format(raw=raw, folder=tmp_path, **places) for word in arguments))
    assert re.search(message, found), found
