"""Tables of results are made of the stored records, the chosen ones in order, and name what there is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import result_tables  # noqa: E402

BEGIN, END = "<!-- results of some/small direction=de-en -->", "<!-- end -->"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and three records, one of another direction."""
    for number, (name, model, direction, bleu) in enumerate(
        [
            ("DINOISER, raw, 20 steps", "dinoiser-raw", "de-en", 25.25),
            ("DINOISER, raw, 5 lengths, joint", "dinoiser-raw", "de-en", 26.0),
            ("GLAT, no glancing, distilled, 1 pass", "glat-distilled", "de-en", 30.125),
            ("GLAT, raw, 1 pass", "glat-raw", "en-de", 99.0),
        ]
    ):
        scores = {"sacrebleu": bleu, "chrf": 50.0, "length_ratio": 0.9, "repetition": 0.0125}
        record = {
            "name": name,
            "model": model,
            "recipe": "some/small",
            "direction": direction,
            "scores": scores,
            "training": {"updates": 9000},
            "translating": {"calls": 20.0},
        }
        path = tmp_path / "examples/some/results" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    page = tmp_path / "page.md"
    monkeypatch.setattr(result_tables, "RESULTS", tmp_path / "examples")
    monkeypatch.setattr(result_tables, "PAGES", (page,))
    return page


def test_the_documents_are_up_to_date(capsys: pytest.CaptureFixture[str]):
    assert result_tables.main(["--check"]) == 0, capsys.readouterr().out


def test_the_best_model_comes_first_and_each_says_once_what_it_is(page: Path):
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert result_tables.main(["--check"]) == 1 and "old" in page.read_text()
    assert result_tables.main([]) == 0 and result_tables.main(["--check"]) == 0
    above, begin, _, _, *rows, end, below = page.read_text().splitlines()
    assert (above, begin, end, below) == ("above", BEGIN, END, "below")
    assert rows == [
        "| GLAT, no glancing, distilled data | 9,000 | 1 pass | 20 | 30.12 | 50.0 | 0.900 | 1.2 % |",
        "| DINOISER | 9,000 | 5 lengths, joint | 20 | 26.00 | 50.0 | 0.900 | 1.2 % |",
        "|  |  | 20 steps | 20 | 25.25 | 50.0 | 0.900 | 1.2 % |",
    ]


def test_rows_can_be_chosen(page: Path):
    names = "DINOISER, raw, 20 steps | GLAT, no glancing, distilled, 1 pass"
    page.write_text(f"{BEGIN}\n<!-- only {names} -->\n{END}\n")
    assert result_tables.main([]) == 0
    assert [row.split(" | ")[0] for row in page.read_text().splitlines()[4:6]] == [
        "| DINOISER",
        "| GLAT, no glancing, distilled data",
    ]


@pytest.mark.parametrize(
    "marks, said",
    [
        (f"{BEGIN}\n<!-- only DINOISER, raw, 2 steps -->\n{END}\n", "there is no result 'DINOISER, raw, 2 steps'"),
        (f"{BEGIN.replace('de-en', 'en-fr')}\n{END}\n", "there are no results of some/small with"),
    ],
)
def test_what_there_is_not_is_named(page: Path, marks: str, said: str):
    page.write_text(marks)
    with pytest.raises(SystemExit, match=said):
        result_tables.main([])
