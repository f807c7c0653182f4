"""BLEU from summed counts is BLEU of the whole."""

from __future__ import annotations

import pytest
import sacrebleu
import torch

from fairseq_diffusion.tasks.bleu import KEYS, bleu_counts, bleu_from_counts

HYPOTHESES = ["the cat sat on the mat .", "", "a b c", "every word is right here today"]
REFERENCES = ["the cat sat on a mat .", "nothing said", "a b d e", "every word is right here today"]


@pytest.mark.parametrize("tokenize", ["13a", "none"])
def test_counts_of_parts_give_the_score_of_the_whole(tokenize: str):
    parts = [bleu_counts(HYPOTHESES[i::2], REFERENCES[i::2], tokenize) for i in range(2)]
    total = torch.tensor([float(sum(part[key] for part in parts)) for key in KEYS])
    whole = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize=tokenize, force=True).score
    assert whole > 10
    assert bleu_from_counts(total) == pytest.approx(whole)


def test_silence_scores_zero():
    counts = bleu_counts(["", ""], ["a b", "c"], "none")
    assert bleu_from_counts(torch.tensor([float(counts[key]) for key in KEYS])) == 0
