"""Matrix chrF against sacreBLEU's."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from fairseq_diffusion.decoding.mbr import chrf, expected_utility
from fairseq_diffusion.decoding.ngrams import Sequences

METRIC = CHRF()
WORDS = ["a", "ab", "abba", "Übung", "не", "знаю", "日本語", "😀", "e\u0301t", "...", "<unk>", "abracadabra"]


def characters(*sentences: list[str]) -> Sequences:
    """Texts of sentences that have equally many, without their spaces."""
    bare = [["".join(text.split()) for text in texts] for texts in sentences]
    items = [ord(character) for texts in bare for text in texts for character in text]
    return Sequences(np.array(items, dtype=np.int64), np.array([[len(text) for text in texts] for texts in bare]))


def loop_matrix(texts: list[str]) -> np.ndarray:
    return np.array([[METRIC.sentence_score(hypothesis, [text]).score for text in texts] for hypothesis in texts])


def random_texts(rng: random.Random, count: int | None = None) -> list[str]:
    """Texts of 0..8 words, some of them copies."""
    words = rng.sample(WORDS, 5)
    fresh = [" ".join(rng.choices(words, k=rng.randint(0, 8))) for _ in range(count or rng.randint(1, 6))]
    return fresh + ([] if count else [rng.choice(fresh) for _ in range(rng.randint(0, 3))])


def test_matrix_equals_sacrebleu_entry_by_entry() -> None:
    rng = random.Random(1)
    for _ in range(100):
        texts = random_texts(rng)
        assert np.allclose(chrf(characters(texts))[0], loop_matrix(texts), rtol=0, atol=1e-9)


def test_scores_and_choice_equal_a_sacrebleu_loop() -> None:
    rng = random.Random(2)
    for _ in range(100):
        texts = random_texts(rng)
        matrix = loop_matrix(texts)
        wanted = (matrix.sum(axis=1) - matrix.diagonal()) / max(len(texts) - 1, 1)
        distinct = list(dict.fromkeys(texts))
        votes = np.array([[texts.count(text) for text in distinct]])
        found = expected_utility(chrf(characters(distinct)), votes)[0]
        assert np.allclose(found, [wanted[texts.index(text)] for text in distinct], rtol=0, atol=1e-9)
        best = {text for text, score in zip(texts, wanted) if score > wanted.max() - 1e-9}
        assert distinct[found.argmax()] == next(text for text in distinct if text in best)


def test_a_sentence_scores_the_same_in_any_batch() -> None:
    rng = random.Random(3)
    sentences = [random_texts(rng, 4) for _ in range(5)]
    for texts, found in zip(sentences, chrf(characters(*sentences))):
        assert np.array_equal(found, chrf(characters(texts))[0])


@pytest.mark.parametrize("texts", [[""], ["", ""], ["", "a"]])
def test_nothing_scores_nothing_and_itself_a_hundred(texts: list[str]) -> None:
    assert chrf(characters(texts))[0] == pytest.approx(np.diag([100.0 if text else 0.0 for text in texts]))
