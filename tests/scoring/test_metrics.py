"""Metrics against sacreBLEU's own command line, and against counts by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import samples
from sacremoses import MosesDetokenizer

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.metrics import Metrics, Options, repetition, split_compounds, unknown
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.text_forms import TextForms

REFERENCES = samples.raw(60)
SYSTEM = samples.worse(REFERENCES, 0.3, seed=5)


def sacrebleu(folder: Path, systems: list[list[str]], references: list[list[str]], flags: str) -> Any:
    """What the command prints as JSON."""
    refs = [str(samples.write(folder / f"ref{i}", lines)) for i, lines in enumerate(references)]
    hyps = [str(samples.write(folder / f"hyp{i}", lines)) for i, lines in enumerate(systems)]
    command = [sys.executable, "-m", "sacrebleu", *refs, "-i", *hyps, "--width", "14", *flags.split()]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def metrics_of(
    printed: list[str], references: list[list[str]], language: str = "en", **chosen: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Metrics and signatures of one output."""
    output = Output("x", Path("x"), printed)
    text_forms = TextForms(language, [output])
    metrics = Metrics(references, text_forms, Options(**chosen))
    return metrics.scores(output, text_forms.detokenised(output)[0]), metrics.signatures()


def agree(metrics: dict[str, Any], signatures: dict[str, str], said: list[dict[str, Any]], names: str) -> None:
    for name, result in zip(names.split(), said):
        assert metrics[name] == pytest.approx(result["score"], abs=1e-12) and result["score"] > 1
        assert signatures[name] == result["signature"]


# -- sacreBLEU's command line


@pytest.mark.parametrize("count", [1, 2])
def test_plain_text(tmp_path: Path, count: int):
    references = [REFERENCES, samples.worse(REFERENCES, 0.2, seed=9)][:count]
    found, signatures = metrics_of(SYSTEM, references)
    said = sacrebleu(tmp_path, [SYSTEM], references, "-m bleu chrf ter")
    agree(found, signatures, said, "sacrebleu chrf ter")
    assert signatures["sacrebleu"].startswith(f"nrefs:{count}|")
    assert f"BP = {found['brevity_penalty']:.3f} ratio = {found['length_ratio']:.3f} " in said[0]["verbose_score"]


def test_case_and_tokenizer(tmp_path: Path):
    found, signatures = metrics_of(SYSTEM, [REFERENCES], lowercase=True, tokenize="char")
    said = sacrebleu(tmp_path, [SYSTEM], [REFERENCES], "-m bleu chrf -lc --chrf-lowercase --tokenize char")
    agree(found, signatures, said, "sacrebleu chrf")


def test_tokenised_text_is_detokenised(tmp_path: Path):
    printed = samples.tokenised(SYSTEM)
    by_hand = [MosesDetokenizer("en").detokenize(line.split()) for line in printed]
    found, signatures = metrics_of(printed, [REFERENCES])
    agree(found, signatures, sacrebleu(tmp_path, [by_hand], [REFERENCES], "-m bleu chrf ter"), "sacrebleu chrf ter")


@pytest.mark.parametrize("hyphens", [False, True])
def test_bleu_of_tokens_is_that_of_tokens_made_by_hand(tmp_path: Path, hyphens: bool):
    """As preprocessing did it: with the escapes, with split hyphens or without."""
    printed, wanted = (samples.tokenised(lines, aggressive_dash_splits=hyphens) for lines in (SYSTEM, REFERENCES))
    found, signatures = metrics_of(printed, [REFERENCES])
    said = sacrebleu(tmp_path, [printed], [wanted], "-m bleu --tokenize none --force")
    assert found["tokenised"] == pytest.approx(said["score"], abs=1e-12) and said["score"] > 1
    assert signatures["tokenised"].startswith(f"{said['signature']}; words by sacremoses (en)")
    assert signatures["tokenised"].endswith(", hyphens split") is hyphens
    if not hyphens:
        assert metrics_of(SYSTEM, [REFERENCES])[0]["tokenised"] == pytest.approx(found["tokenised"])


def test_compounds_are_split_on_both_sides(tmp_path: Path):
    printed, wanted = samples.tokenised(SYSTEM), samples.tokenised(REFERENCES)
    found, signatures = metrics_of(printed, [REFERENCES], compound_split=True)
    split = [[split_compounds(line) for line in lines] for lines in (printed, wanted)]
    said = sacrebleu(tmp_path, split[:1], split[1:], "-m bleu --tokenize none --force")
    assert found["compound_split"] == pytest.approx(said["score"], abs=1e-12)
    assert found["compound_split"] != pytest.approx(found["tokenised"])
    assert "##AT##" in signatures["compound_split"] and "##AT##" not in signatures["tokenised"]


@pytest.mark.parametrize(
    ("line", "split"),
    [
        ("a-b-c", "a ##AT##-##AT## b-c"),
        ("well-known x - y", "well ##AT##-##AT## known x - y"),
        ("-a b- @-@ c", "-a b- ##AT##-##AT## c"),
    ],
)
def test_where_compounds_are_split(line: str, split: str):
    assert split_compounds(line) == split


# -- languages


def test_chinese_is_split_by_sacrebleu_alone():
    text = "\u4f60\u597d\u4e16\u754c\u3002"
    found, signatures = metrics_of([text], [[text]], "zh")
    assert found["sacrebleu"] == pytest.approx(100) and "tok:zh" in signatures["sacrebleu"]
    assert found["tokenised"] is None and found["repetition"] is None and "tokenised" not in signatures
    printed = metrics_of(["\u4f60\u597d \u4e16\u754c \u3002"], [[text]], "zh")[0]
    assert printed["sacrebleu"] == pytest.approx(100) and printed["repetition"] == 0


def test_without_a_language_text_can_be_scored_but_not_split():
    found, _ = metrics_of(SYSTEM, [REFERENCES], "")
    assert found["sacrebleu"] > 1 and found["tokenised"] is None
    with pytest.raises(UserError, match="x is tokenised; pass its language with --language"):
        metrics_of(samples.tokenised(SYSTEM), [REFERENCES], "")


def test_a_tokenizer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "MeCab", None)
    for name in [name for name in sys.modules if "tokenizer_ja_mecab" in name]:
        monkeypatch.delitem(sys.modules, name)
    for language, chosen in (("ja", None), ("en", "ja-mecab")):
        with pytest.raises(UserError, match="cannot load its tokenizer .*ja.* choose another with --tokenize"):
            metrics_of(["a"], [["a"]], language, tokenize=chosen)


# -- shares


def test_repetition_is_of_words_in_their_sentence():
    assert repetition([["a", "a", "b", "a"], ["a", "c", "c", "c"], []]) == 3 / 8
    assert repetition([]) is None and repetition([[]]) is None
    assert metrics_of(["No no, no no.", "x"], [["a"] * 2])[0]["repetition"] == 1 / 7  # No no , no no . x


def test_unknown_words():
    assert unknown(["a <unk> b<unk>", "", "c"]) == 2 / 4
    assert unknown([""]) is None


def test_an_output_without_words():
    found, _ = metrics_of(["", ""], [["a b c d.", "e"]])
    assert (found["sacrebleu"], found["brevity_penalty"], found["repetition"]) == (0, 0, None)
