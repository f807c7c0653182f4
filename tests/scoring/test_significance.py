"""p-values are those of sacreBLEU's own paired bootstrap, and where differences are equal those of its definition."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import samples
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from fairseq_diffusion.scoring.significance import SEED, p_values

REFERENCES = samples.raw(80)
SYSTEMS = {f"s{i}": samples.worse(REFERENCES, 0.2 + 0.03 * i, seed=i) for i in range(4)}


@pytest.mark.parametrize("kind", [BLEU, CHRF])
def test_every_pair_is_as_sacrebleu_says(kind: type):
    metric = kind(references=[REFERENCES])
    found = p_values(metric, SYSTEMS, 200)
    for first in SYSTEMS:
        others = [name for name in SYSTEMS if name != first]
        order = [(name, SYSTEMS[name]) for name in (first, *others)]
        _, said = PairedTest(order, {"m": metric}, None, test_type="bs", n_samples=200)()
        (results,) = (results for name, results in said.items() if name != "System")
        assert [found[first][name] for name in others] == [result.p_value for result in results[1:]]
    assert len({p for row in found.values() for p in row.values()}) > 3


@pytest.mark.parametrize(("kind", "name"), [(BLEU, "bleu"), (CHRF, "chrf")])
def test_the_command_line_prints_the_same(tmp_path: Path, kind: type, name: str):
    paths = [str(samples.write(tmp_path / name, lines)) for name, lines in {"ref": REFERENCES, **SYSTEMS}.items()]
    flags = f"-m {name} --paired-bs --paired-bs-n 200 --format text --no-color".split()
    command = [sys.executable, "-m", "sacrebleu", paths[0], "-i", *paths[1:], *flags]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = p_values(kind(references=[REFERENCES]), SYSTEMS, 200)["s0"]
    assert re.findall(r"p = ([\d.]+)", printed) == [f"{p:.4f}" for p in found.values()]


def test_the_same_text_has_no_p():
    found = p_values(BLEU(references=[REFERENCES]), {**SYSTEMS, "twin": SYSTEMS["s0"]}, 10)
    assert found["twin"]["s0"] is None and found["s0"]["twin"] is None
    assert found["twin"]["s1"] == found["s0"]["s1"] is not None


FEW = [line.split(".")[0] for line in REFERENCES[:6]]
EMPTY = [""] * len(FEW)
PAIRS = {  # of systems, with p where it is known
    "nothing right, mostly empty": ([*EMPTY[1:], "xx yy"], [*EMPTY[2:], "zz", "xx yy"], 1.0),
    "the same matches in other words": ([*FEW[1:], "xx"], [*FEW[1:], "yy"], 1.0),
    "equal in many resamples": ([*FEW[1:], ""], [*FEW[2:], FEW[0], ""], None),
    "better everywhere": (FEW, EMPTY, None),
}


def counted(one: list[str], other: list[str], number: int) -> float:
    """By scoring the text of each draw."""

    def difference(rows: list[int]) -> float:
        bleu = BLEU(references=[[FEW[i] for i in rows]])
        scores = [bleu.corpus_score([texts[i] for i in rows], None).score for texts in (one, other)]
        return abs(scores[0] - scores[1])

    every = list(range(len(FEW)))
    found = [difference(rows) for rows in np.random.default_rng(SEED).choice(every, (number, len(every))).tolist()]
    mean = sum(found) / number
    return (sum(each - mean >= difference(every) for each in found) + 1) / (number + 1)


@pytest.mark.parametrize(("one", "other", "known"), PAIRS.values(), ids=PAIRS)
def test_equal_differences_count(one: list[str], other: list[str], known: float | None):
    """Neither of two systems with BLEU 0 is significantly better."""
    found = p_values(BLEU(references=[FEW]), {"one": one, "other": other}, 99)
    assert found["one"]["other"] == counted(one, other, 99) == found["other"]["one"]
    assert known is None or found["one"]["other"] == known
