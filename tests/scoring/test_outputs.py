"""What systems wrote: files, folders, gaps, calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import samples

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting.output import KIND
from fairseq_diffusion.scoring.outputs import name_and_path, read_output

LINES = ["one two", "three four five", "six", "seven eight"]


def written(tmp_path: Path, text: str, **report: Any) -> Path:
    """A folder of --results-path."""
    (tmp_path / "generate-test.txt").write_text(text)
    if report:
        (tmp_path / "generate-test.json").write_text(json.dumps({"kind": KIND, "speed": {}, "scores": {}, **report}))
    return tmp_path / "generate-test.txt"


def without(text: str, *numbers: int) -> str:
    """A log that lacks some sentences."""
    ends = tuple(f"-{number}\t" for number in numbers)
    return "".join(line for line in text.splitlines(keepends=True) if not line[1:].startswith(ends))


# -- names


def test_names(tmp_path: Path):
    log, plain = written(tmp_path, ""), samples.write(tmp_path / "x=1.de", LINES)
    assert name_and_path(str(tmp_path)) == (tmp_path.name, log) and name_and_path(str(log)) == (tmp_path.name, log)
    assert name_and_path(str(plain)) == ("x=1", plain)
    assert name_and_path(f"My, 5={plain}") == ("My, 5", plain) and name_and_path(f"A={tmp_path}") == ("A", log)


def test_a_folder_must_hold_one_output(tmp_path: Path):
    with pytest.raises(UserError, match="holds no generate-SUBSET.txt"):
        name_and_path(str(tmp_path))
    for subset in ("test", "valid"):
        (tmp_path / f"generate-{subset}.txt").touch()
    with pytest.raises(UserError, match="holds generate-test.txt, generate-valid.txt; name the file"):
        name_and_path(str(tmp_path))


# -- texts


def test_the_best_hypotheses_come_in_the_order_of_the_data(tmp_path: Path):
    path = written(tmp_path, samples.log_of(["a@@ b c", "d", "", "e"]))
    output = read_output("x", path, 4)
    assert output.printed == ["ab c", "d", "", "e"] and output.detokenised is None
    assert (output.calls, output.steps, output.languages, output.skipped) == (None, None, None, 0)


def test_joined_words_are_those_of_d_lines(tmp_path: Path):
    path = written(tmp_path, samples.log_of(["a@@ b .", "c !"], ["a@@ b.", "c!"]))  # --tokenizer, but no --remove-bpe
    assert read_output("x", path, 2).detokenised == ["ab.", "c!"]
    path = written(tmp_path, samples.log_of(["\u2581A \u2581b , c", "\u2581D"], ["A b,c", "D"]))  # --bpe sentencepiece
    output = read_output("x", path, 2)
    assert output.printed == ["A b,c", "D"] and output.detokenised is None


def test_plain_text(tmp_path: Path):
    path = samples.write(tmp_path / "plain", ["a@@ b c", ""])
    assert read_output("x", path, 2).printed == ["ab c", ""]


# -- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", "has 2 lines, but there are 4 references"),
        ("\n\n\n\n", "is empty"),
        ("", "is empty"),
        (samples.log_of(LINES[:3]), r"no translation of 1 of 4 sentences: 3 \(counted from 0\)"),
        (without(samples.log_of(LINES), 0, 2), r"no translation of 2 of 4 sentences: 0, 2 "),
        (samples.log_of([*LINES, "more"]), r"holds sentence 4 \(counted from 0\), but there are 4 references"),
        (samples.log_of(LINES) * 2, "twice"),
        ("S-0\tsource\n", "no translation of 4 of 4 sentences: 0, 1, 2, 3 "),
    ],
)
def test_incomplete_outputs(tmp_path: Path, text: str, message: str):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=message):
        read_output("x", path, 4)


def test_a_long_list_of_gaps_is_cut(tmp_path: Path):
    path = written(tmp_path, without(samples.log_of(["a"] * 9), *range(7)))
    with pytest.raises(UserError, match=r"of 7 of 9 sentences: 0, 1, 2, 3, 4, \.\.\. "):
        read_output("x", path, 9)


# -- what the report beside it says


def test_sentences_that_the_report_says_were_skipped_are_empty(tmp_path: Path):
    text = without(samples.log_of(LINES), 1)
    output = read_output("x", written(tmp_path, text, data={"skipped": 1, "languages": "de-en"}), 4)
    assert output.printed == ["one two", "", "six", "seven eight"] and output.skipped == 1
    assert output.languages == ("de", "en") and set(output.report) == {"data"}
    with pytest.raises(UserError, match="no translation of 2 of 4"):
        read_output("x", written(tmp_path, without(text, 3), data={"skipped": 1}), 4)


@pytest.mark.parametrize(
    ("decoding", "calls", "steps"),
    [
        ({"calls": 7.5, "steps": 10}, 7.5, 10),
        ({"calls": 3, "passes": 2}, 3, 2),
        ({"decoder": "SequenceGenerator"}, (3 + 4 + 2 + 3) / 4, None),
        ({"decoder": "SequenceGeneratorWithAlignment"}, 3, None),
        ({"decoder": "Other"}, None, None),
    ],
)
def test_network_calls(tmp_path: Path, decoding: dict[str, Any], calls: float | None, steps: int | None):
    output = read_output("x", written(tmp_path, samples.log_of(LINES), decoding=decoding), 4)
    assert (output.calls, output.steps) == (calls, steps)


def test_calls_are_not_guessed_where_scores_were_not_printed(tmp_path: Path):
    text = "".join(line for line in samples.log_of(LINES).splitlines(keepends=True) if not line.startswith("P-1\t"))
    path = written(tmp_path, text, decoding={"decoder": "SequenceGenerator"})
    assert read_output("x", path, 4).calls is None


@pytest.mark.parametrize("changed", [{"decoding": {"calls": "x"}}, {"data": {"skipped": -1}}, {"decoding": []}])
def test_a_report_of_ours_that_was_changed_is_no_report_of_nothing(tmp_path: Path, changed: dict[str, Any]):
    path = written(tmp_path, samples.log_of(LINES), **changed)
    with pytest.raises(UserError, match="generate-test.json is a report with values of other types"):
        read_output("x", path, 4)
    report = path.with_suffix(".json")
    report.write_bytes(report.read_bytes()[:-9])
    with pytest.raises(UserError, match="generate-test.json is not a report"):
        read_output("x", path, 4)


def test_a_report_without_parts(tmp_path: Path):
    output = read_output("x", written(tmp_path, samples.log_of(LINES), data=None, decoding=None), 4)
    assert (output.languages, output.steps, output.calls) == (None, None, None)


@pytest.mark.parametrize("other", ["[1]", '{"kind": "other"}', "no json"])
def test_a_file_of_somebody_else_says_nothing(tmp_path: Path, other: str):
    path = written(tmp_path, samples.log_of(LINES))
    path.with_suffix(".json").write_text(other)
    assert read_output("x", path, 4).report == {}
