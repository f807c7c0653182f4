"""What is said of a row, and of all rows together."""

from __future__ import annotations

from pathlib import Path

import samples

from fairseq_diffusion.scoring.comparison import compared
from fairseq_diffusion.scoring.metrics import Options
from fairseq_diffusion.scoring.outputs import Output

REFERENCES = samples.raw(20)


def outputs(**printed: list[str]) -> list[Output]:
    return [Output(name, Path(f"{name}.txt"), lines) for name, lines in printed.items()]


def notes(systems: list[Output]) -> list[list[str]]:
    comparison, _ = compared(systems, [Path("ref")], [REFERENCES], "en", Options(), 0)
    return [row["notes"] for row in comparison["rows"]]


def test_empty_translations_are_counted_beside_skipped_ones():
    (output,) = outputs(x=["", " ", "", *REFERENCES[3:]])
    assert notes([output]) == [["3 empty"]]
    output.skipped = 2
    assert notes([output]) == [["2 SKIPPED, scored as empty", "1 empty"]]


def test_hyphens_may_be_split_in_one_output_and_not_in_another():
    """The same translations have the same metrics."""
    said = [f"a well-known {line}" for line in samples.worse(REFERENCES, 0.2, 1)]
    split, whole = (samples.tokenised(said, aggressive_dash_splits=dashes) for dashes in (True, False))
    systems, options = outputs(a=split, b=whole, c=said), Options(compound_split=True)
    comparison, _ = compared(systems, [Path("ref")], [REFERENCES], "en", options, 0)
    metrics = [[row[name] for name in ("sacrebleu", "tokenised", "compound_split")] for row in comparison["rows"]]
    assert split != whole and metrics[0] == metrics[1] == metrics[2]


def test_texts_are_those_that_are_scored():
    systems = outputs(a=samples.tokenised(REFERENCES), b=REFERENCES[::-1])
    comparison, texts = compared(systems, [Path("ref")], [REFERENCES], "en", Options(), 0)
    assert texts["b"] == REFERENCES[::-1] and texts["a"] != systems[0].printed
    assert [row["text"] for row in comparison["rows"]] == ["detokenised by sacremoses (en)", "as given"]


def test_it_is_said_by_what_an_ar_model_chose():
    (output,) = outputs(x=REFERENCES[1:] + REFERENCES[:1])
    for by, note in (({}, "rescored by AR"), ({"rescored_by": "energy"}, "rescored by AR energy")):
        output.report["decoding"] = {"rescored": True, **by}
        assert notes([output]) == [[note]]


def test_calls_of_a_draft_are_told():
    (output,) = outputs(x=REFERENCES[1:] + REFERENCES[:1])
    assert notes([output]) == [[]]
    output.report["decoding"] = {"draft": {"begins_at": 0.5, "calls": 1.0}}
    assert notes([output]) == [["begins with a draft of 1 more calls"]]
    output.report["decoding"]["draft"]["calls"] = None
    assert notes([output]) == [["begins with a draft of 0 more calls"]]
    output.report["decoding"] = {"draft": "none"}
    assert notes([output]) == [[]]
