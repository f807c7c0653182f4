"""What the block says of facts that change the meaning of a number."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting import read, render
from fairseq_diffusion.reporting.output import KIND, check_ours, is_report

SCORE = {"bleu": 12.345, "brevity_penalty": 0.9, "length_ratio": 0.95, "sentences": 10, "signature": "tok:none|v:2"}
RATE = {"seconds": 2.0, "sentences_per_second": 5.0}
REPORT: dict[str, Any] = {
    "kind": KIND,
    "system": "small",
    "task": "translation",
    "checkpoints": [
        {"path": "m.pt", "system": "small", "task": "t", "updates": 7, "averaged": ["a.pt", "b.pt"], "ema": None},
        {"path": "ar.pt", "system": "transformer", "task": "t", "updates": 9, "averaged": [], "ema": False},
    ],
    "data": {
        **{"directory": "bin", "subset": "test", "languages": "a-b", "decoded": 10, "sentences": 12, "skipped": 2},
        **{"shard": 0, "shards": 1},
    },
    "decoding": {
        **{"seed": 1, "zeal": 0.123456789, "steps": 20, "calls": 19.5, "sampler": "ddim", "told": [1.5, 0.99]},
        **{"length_beam": 5, "noise_beam": 3, "selection": "mbr", "rescored": True, "oracle_length": False},
    },
    "scores": {
        "tokenised": {**SCORE, "bpe": "removed (@@)"},
        "sacrebleu": {**SCORE, "reference": "raw.b", "detokenised": "us", "missing": 2, "shard_alone": False},
    },
    "speed": {
        **{"loading_seconds": 1.0, "end_to_end": RATE, "inference_step": RATE, "model": RATE, "printed": True},
        **{"max_sentences": 8, "max_tokens": None},
    },
    "environment": {
        **{"device": "some GPU", "precision": "fp16", "torch": "2", "fairseq": "fairseq 0", "python": "3"},
        "fairseq_diffusion": "0.1",
    },
}


def rows(report: dict[str, Any]) -> dict[str, str]:
    """Text by label; the lines without a label belong to the one above."""
    found: dict[str, str] = {}
    label = ""
    for line in render(report).splitlines()[1:-1]:
        name, text = line[2:20].strip(), line[20:].strip()
        label = name or label
        found[label] = f"{found[label]} | {text}" if label in found else text
    return found


def changed(path: str, value: Any) -> dict[str, Any]:
    report = part = copy.deepcopy(REPORT)
    *places, name = path.split("/")
    for place in places:
        part = part[place]
    part[name] = value
    return report


def test_every_line_begins_with_a_bar():
    assert all(line.startswith("|") for line in render(REPORT).splitlines())
    assert all(line.startswith("|") for line in render(changed("system", "a\nH-1\t0\tb")).splitlines())


def test_labels_come_in_order():
    assert list(rows(REPORT)) == [
        *(
            "system",
            "checkpoint",
            "data",
            "sentences",
            "steps",
            "network calls",
            "sampler",
            "conditioning sigma",
            "candidates",
        ),
        *("selection", "AR rescoring", "oracle length", "zeal", "seed", "tokenised BLEU", "sacreBLEU", "sentences/s"),
        *("loading", "batches", "device", "versions"),
    ]


def test_texts():
    found = rows(REPORT)
    assert found["checkpoint"] == (
        "m.pt | small, 7 updates, average of 2 checkpoints, EMA not recorded | averaged: a.pt | averaged: b.pt"
        " | ar.pt | transformer, 9 updates, not averaged, no EMA"
    )
    assert found["sentences"] == "10 of 12 decoded, 2 SKIPPED"
    assert found["network calls"] == "19.5 (mean of a candidate)"
    assert found["conditioning sigma"] == "1.5, 0.99" and found["zeal"] == "0.123457"
    assert found["candidates"] == "length beam 5 x noise beam 3 = 15"
    assert found["AR rescoring"] == "yes, by the probability of ar.pt"
    assert found["tokenised BLEU"].startswith("12.35 (brevity penalty 0.900, length ratio 0.950, 10 sentences)")
    assert found["tokenised BLEU"].endswith("BPE removed (@@) | tok:none|v:2")
    assert "against raw.b; BPE removed, detokenised by us; 2 MISSING, scored as empty" in found["sacreBLEU"]
    assert found["sentences/s"].startswith("5.00 in 2.000 s end to end |") and "sampler" in found["sentences/s"]
    assert found["device"] == "some GPU, fp16"


@pytest.mark.parametrize(
    "path, value, label, text",
    [
        ("decoding/rescored", False, "AR rescoring", "no"),
        ("decoding/rescored_by", "energy", "AR rescoring", "yes, by the energy of ar.pt"),
        ("decoding/length_beam", "ORACLE length", "candidates", "length beam ORACLE length x noise beam 3 = 3"),
        ("scores/tokenised", {"unavailable": "why"}, "tokenised BLEU", "not available: why"),
        ("data/skipped", 0, "sentences", "10 of 12 decoded"),
        ("data/shards", 3, "sentences", "10 of 12 decoded (shard 0 of 3, counted from 0)"),
        ("speed/max_tokens", 400, "batches", "up to 8 sentences and 400 tokens"),
        ("speed/model", None, "sentences/s", "5.00 in 2.000 s end to end | 5.00 in 2.000 s inside inference_step"),
    ],
)
def test_other_facts(path: str, value: Any, label: str, text: str):
    assert rows(changed(path, value))[label] == text


def test_an_oracle_cannot_be_overlooked():
    assert "REFERENCES WERE USED" in rows(changed("decoding/oracle_length", True))["ORACLE LENGTH"]
    assert "ORACLE" not in render(REPORT)


def test_a_shard_is_scored_alone_and_without_printing_is_said():
    assert "of this shard alone" in rows(changed("scores/sacrebleu/shard_alone", True))["sacreBLEU"]
    assert "(--quiet)" in rows(changed("speed/printed", False))["sentences/s"]


# -- files


def test_a_report_is_read_back(tmp_path: Path):
    (tmp_path / "r.json").write_text(json.dumps(REPORT))
    assert read(tmp_path / "r.json") == REPORT and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "[1]", json.dumps({"kind": "other"})])
def test_another_file_is_neither_read_nor_replaced(tmp_path: Path, text: str):
    path = tmp_path / "generate-test.json"
    path.write_text(text)
    with pytest.raises(UserError, match="generate-test.json"):
        read(path)
    with pytest.raises(UserError, match="which we did not write"):
        check_ours(path, is_report)


def test_a_report_may_be_replaced(tmp_path: Path):
    check_ours(tmp_path / "r.json", is_report)
    (tmp_path / "r.json").write_text(json.dumps(REPORT))
    check_ours(tmp_path / "r.json", is_report)
