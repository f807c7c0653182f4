"""p-values are those of sacreBLEU's own paired bootstrap."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import samples
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from fairseq_diffusion.scoring.significance import p_values

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
