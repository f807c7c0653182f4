"""What follows the network, in ms a sentence: choosing among candidates, fairseq's hypotheses, and their text.

    .venv/bin/python benchmarks/post.py                  (--device cuda: candidates start on the GPU)

Candidates of a sentence have 20 to 25 random words, each four of five from a common sentence.  Before a row is timed,
ours is held against what it replaces: utilities and scores may differ by the last column, tokens and text not at
all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import networks
import numpy as np
import torch
from common import Row, filled, flags, report, versus
from fairseq.data import Dictionary
from fairseq.iterative_refinement_generator import DecoderOut, IterativeRefinementGenerator
from forms import checked
from sacrebleu.metrics import BLEU, CHRF

from fairseq_diffusion.alignment.base import Words
from fairseq_diffusion.decoding.hypotheses import hypotheses
from fairseq_diffusion.decoding.selection import SELECTIONS, Pool, Selector
from fairseq_diffusion.tasks.dictionary import TableDictionary
from fairseq_diffusion.translators.batch import Candidates, Lengths

USUAL = {"candidates": [5, 21, 50], "sentences": 4, "batch": 64}
SIZES = {"quick": {"candidates": [3], "sentences": 2, "batch": 2}, "cpu": USUAL, "cuda": USUAL}
ENTRIES, SHORTEST, LONGEST = 200, 20, 25
UTILITIES, SCORES = 1e-9, 1e-5  # how far ours may be from fp64 and from fp32
COLUMNS = {
    "what": ("what", ""),
    "ms a sentence": ("ms", ".4f"),
    "IQR": ("iqr_ms", ".4f"),
    "baseline": ("baseline_ms", ".4f"),
    "ratio": ("ratio", ".1f"),
    "difference": ("difference", ".1e"),
}


def main() -> int:
    options = arguments()
    benches = (bench_bleu, bench_chrf, bench_hypotheses, bench_strings)
    report([row for bench in benches for row in bench(options)], options, COLUMNS)
    return 0


def arguments() -> argparse.Namespace:
    parser = flags(__doc__, repeats=9)
    parser.add_argument("--candidates", type=int, nargs="+", help="of a sentence (5 21 50)")
    parser.add_argument("--sentences", type=int, help="sentences to choose for in a call (4)")
    parser.add_argument("--batch", type=int, help="sentences to make hypotheses of in a call (64)")
    options = parser.parse_args()
    return filled(options, SIZES)


def similar(sentences: int, count: int) -> np.ndarray:
    """Tokens [S, K, L] of candidates, four of five of whose words are those of one sentence; -1 after their ends."""
    draw = np.random.default_rng(0)
    base, other = (draw.integers(networks.FIRST, ENTRIES, (sentences, k, LONGEST)) for k in (1, count))
    tokens = np.where(draw.random(other.shape) < 0.8, base, other)
    sizes = draw.integers(SHORTEST, LONGEST + 1, (sentences, count, 1))
    return np.where(np.arange(LONGEST) < sizes, tokens, -1)


def a_sentence(row: Row, sentences: int, difference: float = 0.0) -> Row:
    """Times of all sentences as those of one."""
    shares = {key: value / sentences for key, value in row.items() if key.endswith("ms")}
    return {**row, **shares, "difference": difference}


# -- choosing by minimum Bayes risk ---------------------------------------------------------------------------------


def bench_bleu(options: argparse.Namespace) -> list[Row]:
    """Of tokens."""
    selector = Selector("mbr", "bleu", "tokens", networks.dictionary(ENTRIES))
    metric = BLEU(effective_order=True, tokenize="none")
    rows = []
    for count in options.candidates:
        tokens = similar(options.sentences, count)
        texts = [[" ".join(str(token) for token in row if token >= 0) for row in sentence] for sentence in tokens]
        what = f"BLEU-MBR of {count} candidates, against a sacreBLEU loop"
        rows.append(against_a_loop(what, selector, tokens, metric, texts, options))
    return rows


def bench_chrf(options: argparse.Namespace) -> list[Row]:
    """Of characters; the middle one of the counts."""
    count = sorted(options.candidates)[len(options.candidates) // 2]
    dictionary, tokens = networks.dictionary(ENTRIES), similar(options.sentences, count)
    texts = [[dictionary.string(row[row >= 0], "subword_nmt") for row in sentence] for sentence in tokens]
    selector, what = Selector("mbr", "chrf", "tokens", dictionary), f"chrF-MBR of {count}, against a sacreBLEU loop"
    return [against_a_loop(what, selector, tokens, CHRF(), texts, options)]


def against_a_loop(
    what: str, selector: Selector, tokens: np.ndarray, metric: Any, texts: list[list[str]], options: argparse.Namespace
) -> Row:
    """A selector against the loop that its matrices replace, whose utilities must be the same."""
    candidates = candidates_of(tokens)
    pool = Pool.of(candidates)
    utilities = SELECTIONS["mbr"](pool, selector, None)
    apart = np.abs(utilities - np.take_along_axis(all_pairs(metric, texts), pool.index.clip(0), 1))[pool.exists]
    difference = checked("utilities", float(apart.max()), UTILITIES)
    row = versus(what, partial(selector, candidates), partial(all_pairs, metric, texts), options)
    return a_sentence(row, options.sentences, difference)


def candidates_of(tokens: np.ndarray) -> Candidates:
    """All of one length of the beam, with scores that fall."""
    words = torch.from_numpy(tokens)
    sizes, log_p = (words >= 0).sum(-1), torch.zeros(*tokens.shape[:2], tokens.shape[2] + 1)
    scores = -torch.arange(tokens.shape[1], dtype=torch.double).expand(sizes.shape)
    return Candidates(words, sizes, log_p, scores, scores, sizes * 0, sizes * 0, sizes > 0)


def all_pairs(metric: Any, sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """[S, K] mean score of each candidate against the others."""
    return np.array([[mean_score(metric, texts, i) for i in range(len(texts))] for texts in sentences])


def mean_score(metric: Any, texts: Sequence[str], i: int) -> float:
    scores = [metric.sentence_score(texts[i], [other]).score for j, other in enumerate(texts) if j != i]
    return float(np.mean(scores))


# -- from the device to fairseq's hypotheses ------------------------------------------------------------------------


def bench_hypotheses(options: argparse.Namespace) -> list[Row]:
    """The best candidate by score, as fairseq's hypothesis; fairseq's own generator makes them all and then looks."""
    rows = []
    for count in options.candidates:
        dictionary, tokens = networks.dictionary(ENTRIES), similar(options.batch, count)
        words = words_of(tokens, options.device)
        ours = partial(chosen, words, Selector("score", "bleu", "tokens", dictionary), dictionary.eos())
        theirs = partial(chosen_by_fairseq, fairseqs(dictionary), FinishedModel(words, dictionary), count)
        difference = checked("scores", compared(ours(), theirs()), SCORES)
        what = f"hypothesis of {count} candidates, against fairseq's loop over all"
        rows.append(a_sentence(versus(what, ours, theirs, options), options.batch, difference))
    return rows


def words_of(tokens: np.ndarray, device: str) -> Words:
    """What a model hands over: words and a place for the end, each with its log-probability."""
    words = torch.nn.functional.pad(torch.from_numpy(tokens), (0, 1), value=-1).to(device)
    mask = words >= 0
    log_p = -torch.rand(words.shape, generator=torch.Generator().manual_seed(0)).to(device)
    end = log_p.gather(-1, mask.sum(-1, keepdim=True))[..., 0]
    return Words(words, log_p, mask, end)


def chosen(words: Words, selector: Selector, eos: int) -> list[dict[str, Any]]:
    positions = torch.full_like(words.mask[:, :1, 0], words.mask.shape[-1], dtype=torch.long)
    lengths = Lengths(positions, torch.zeros_like(positions, dtype=torch.float), words.mask.shape[-1])
    calls = torch.full_like(words.mask[..., 0], 20, dtype=torch.long)
    candidates = Candidates.of(words, lengths, calls).each(torch.Tensor.cpu)
    best = [order[:1] for order in selector(candidates)]
    return [sentence[0] for sentence in hypotheses(candidates, best, eos)]


def fairseqs(dictionary: Dictionary) -> IterativeRefinementGenerator:
    return IterativeRefinementGenerator(dictionary, max_iter=0, adaptive=False)


class FinishedModel:
    """What fairseq's generator asks of a model, by one that has all words already."""

    def __init__(self, words: Words, dictionary: Dictionary):
        end = words.mask.sum(-1, keepdim=True)
        tokens = words.tokens.masked_fill(~words.mask, dictionary.pad()).scatter(-1, end, dictionary.eos())
        self.out = DecoderOut(tokens.flatten(0, 1), words.log_p.flatten(0, 1), None, 0, 1, None)

    def eval(self) -> None:
        pass

    def forward_encoder(self, inputs: Any) -> None:
        pass

    def initialize_output_tokens(self, encoder_out: None, src_tokens: torch.Tensor) -> DecoderOut:
        return self.out

    def forward_decoder(self, decoder_out: DecoderOut, encoder_out: None, **options: Any) -> DecoderOut:
        return self.out


def chosen_by_fairseq(
    generator: IterativeRefinementGenerator, model: FinishedModel, count: int
) -> list[dict[str, Any]]:
    """Its choice among lengths needs the host; so does this one."""
    tokens = model.out.output_tokens
    sample = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(generator.pad).sum(-1)}}
    found = [hypothesis for (hypothesis,) in generator.generate([model], sample)]
    sentences = (found[first : first + count] for first in range(0, len(found), count))
    return [max(sentence, key=lambda hypothesis: float(hypothesis["score"])) for sentence in sentences]


def compared(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> float:
    """The largest difference of scores; infinite where tokens differ."""
    same = all(a["tokens"].tolist() == b["tokens"].tolist() for a, b in zip(ours, theirs))
    return max(abs(a["score"] - float(b["score"])) for a, b in zip(ours, theirs)) if same else float("inf")


# -- text -----------------------------------------------------------------------------------------------------------


def bench_strings(options: argparse.Namespace) -> list[Row]:
    """Pieces of one sentence joined, as fairseq-generate does for source, reference and hypothesis."""
    tokens = torch.from_numpy(similar(1, 1)[0, 0])
    tokens = tokens[tokens >= 0]
    kinds = (TableDictionary, Dictionary)
    ours, theirs = (partial(networks.dictionary(ENTRIES, kind).string, tokens, "subword_nmt") for kind in kinds)
    checked("texts", 0.0 if ours() == theirs() else float("inf"), 0.0)
    row = versus(f"text of {len(tokens)} tokens, against fairseq's Dictionary", ours, theirs, options)
    return [a_sentence(row, 1)]


if __name__ == "__main__":
    raise SystemExit(main())
