"""Scores of texts without a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fairseq_diffusion.reporting.scores import sacrebleu, scores_of, tokenised


def recorder(
    hypotheses: dict[int, str],
    references: dict[int, str] | None = None,
    raw: list[str] | None = None,
    language: str = "en",
    bpe_name: str | None = None,
) -> Any:
    return SimpleNamespace(
        cfg=SimpleNamespace(task=SimpleNamespace(raw_reference="raw.txt")),
        texts=SimpleNamespace(tokenizer=None, bpe_name=bpe_name),
        task_cfg=SimpleNamespace(target_lang=language),
        hypotheses=hypotheses,
        references=references or {},
        raw=raw,
        shards=1,
    )


def raw_score(hypotheses: dict[int, str], raw: list[str], language: str = "en") -> dict[str, Any]:
    return sacrebleu(recorder(hypotheses, raw=raw, language=language))


@pytest.mark.parametrize("language, tokenizer", [("zh_CN", "zh"), ("zh", "zh"), ("de", "13a"), ("", "13a")])
def test_the_target_language_chooses_sacrebleus_tokenizer(language: str, tokenizer: str):
    score = raw_score({0: "\u4f60 \u597d \u4e16 \u754c \u3002"}, ["\u4f60\u597d\u4e16\u754c\u3002"], language)
    assert f"tok:{tokenizer}|" in score["signature"]
    if tokenizer == "zh":
        assert score["bleu"] == pytest.approx(100)


def test_pieces_and_words_are_joined_for_raw_references():
    text, raw = "Hel@@ lo , good wor@@ ld , said a tiny dog .", "Hello, good world, said a tiny dog."
    assert raw_score({0: text}, [raw])["bleu"] == pytest.approx(100)


def test_missing_sentences_cost_brevity():
    words = "one two three four five"
    whole, half = raw_score({0: words, 1: words}, [words] * 2), raw_score({1: words}, [words] * 2)
    assert whole["brevity_penalty"] == 1 and half["missing"] == 1
    assert half["length_ratio"] == pytest.approx(0.5) and half["brevity_penalty"] == pytest.approx(2.718281828**-1)


@pytest.mark.parametrize(
    "text, bpe_name, said",
    [
        ("a b@@ c", None, "NOT REMOVED (subword_nmt), so this is BLEU of pieces"),
        ("a b@@ c", "sentencepiece", "NOT REMOVED (subword_nmt), so this is BLEU of pieces"),
        ("a bc", "@@ ", "removed (@@)"),
        ("a bc", None, "none to remove"),
    ],
)
def test_whether_bpe_was_removed(text: str, bpe_name: str | None, said: str):
    assert tokenised(recorder({0: text}, {0: text}, bpe_name=bpe_name))["bpe"] == said


def test_pieces_in_the_references_alone_are_seen():
    assert tokenised(recorder({0: "a"}, {0: "a b@@ c"}))["bpe"].startswith("NOT REMOVED")


@pytest.mark.parametrize("hypotheses, why", [({}, "no sentence was decoded"), ({0: "a"}, "no references")])
def test_why_there_is_no_score(hypotheses: dict[int, str], why: str):
    found = scores_of(recorder(hypotheses))
    assert why in found["tokenised"]["unavailable"] and "unavailable" in found["sacrebleu"]


def test_a_language_without_its_tokenizer_leaves_the_other_score(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "MeCab", None)
    for name in [name for name in sys.modules if "tokenizer_ja_mecab" in name]:
        monkeypatch.delitem(sys.modules, name)
    found = scores_of(recorder({0: "a b c d"}, {0: "a b c d"}, raw=["a b c d"], language="ja"))
    assert "unavailable" in found["sacrebleu"] and found["tokenised"]["bleu"] == pytest.approx(100)
