"""The means at the end of the command `likelihood`."""

import math

from fairseq_diffusion.cli.likelihood import summary
from fairseq_diffusion.decoding.likelihood import SentenceLikelihood


def test_means_and_their_errors():
    found = [SentenceLikelihood(6.0, 0.3, False, 3), SentenceLikelihood(2.0, 0.4, False, 1)]
    assert summary(found, 2, 16).splitlines() == [
        "2 sentences, 4 tokens with the ends of sentences (upper bound, by 16 samples)",
        "2 longer than the model takes, left out",
        "4 +- 0.25 nats per sentence",
        "2 +- 0.125 nats per token",
        f"{math.exp(2):.6g} +- {math.exp(2) / 8:.6g} perplexity per token",
    ]


def test_what_is_infinite_has_no_mean():
    lost = SentenceLikelihood(math.inf, 0.0, True, 9)
    assert summary([lost], 0, 16).splitlines() == [
        "0 sentences, 0 tokens with the ends of sentences (exact)",
        "1 that the model cannot make (infinite), left out of the means",
    ]


def test_a_perplexity_beyond_all_numbers():
    assert summary([SentenceLikelihood(9000.0, 1.0, False, 2)], 0, 2).endswith("inf +- inf perplexity per token")
