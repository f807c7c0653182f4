"""What fairseq-generate reports of a diffusion model is what was done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import SIZES
from runs import reported
from sacrebleu.metrics import BLEU
from sacremoses import MosesDetokenizer
from support import generate, hypotheses, lines

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting import read, render
from fairseq_diffusion.tasks.diffusion_translation import DiffusionTranslationTask

N = SIZES["test"]


@pytest.fixture
def ours(learned: Path) -> Path:
    return learned / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def raw(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The references as people write them: the full stop is not a word."""
    file = tmp_path_factory.mktemp("raw") / "test.b"
    file.write_text((corpus / "test.b").read_text().replace(" .\n", ".\n"))
    return file


def test_facts_are_those_of_the_run(data: Path, ours: Path, tmp_path: Path):
    flags = "--iter-decode-with-beam 3 --noise-beam 4 --selection mbr_two_level --mbr-utility chrf --seed 5"
    flags += " --sampler cedi --conditioning-sigma-end 0.9 --grid sigma --temperature 0.9 --clamp"
    flags += " --iter-decode-max-iter 4"
    text, report = reported(data, ours, tmp_path, flags)
    decoding = report["decoding"]
    assert decoding == {
        **{"sampler": "cedi", "grid": "sigma", "steps": 4, "calls": 4.0, "steps_left_out": 0},
        **{"conditioning_sigma": "1.0 to 0.9"},
        **{"eta": 0.0, "temperature": 0.9, "guidance": 1.0, "clamp": True, "decode_noise_factor": 1.0},
        **{"trained_noise_factor": 1.0, "final_time": 0.001, "length_beam_kind": "top_k"},
        **{"length_beam": 3, "noise_beam": 4, "selection": "mbr_two_level", "utility": "chrf of characters"},
        **{"prune_after": "never", "stop_stable": "never", "rescored": False, "oracle_length": False, "seed": 5},
        **{"candidate_positions": "by device", "execution": "eager", "draft": "none", "drop_repeats": False},
    }
    assert (report["system"], report["task"]) == ("dinoiser_toy", "diffusion_translation")
    assert (report["data"]["decoded"], report["data"]["sentences"], report["data"]["skipped"]) == (N, N, 0)
    (checkpoint,) = report["checkpoints"]
    assert (checkpoint["path"], checkpoint["updates"], checkpoint["ema"]) == (str(ours), 60, False)
    speed = report["speed"]
    assert 0 < speed["model"]["seconds"] < speed["inference_step"]["seconds"] < speed["end_to_end"]["seconds"]
    assert text.endswith(render(report) + "\n")


def test_the_block_says_it_in_words(data: Path, ours: Path):
    output = generate(data, ours, "--iter-decode-with-beam 3 --noise-beam 2 --prune-after 1")
    *_, block, end = re.split(r"^\|-+\n", output, flags=re.MULTILINE)
    assert end == "" and len(hypotheses(output)) == N
    for said in (
        rf"sentences +{N} of {N} decoded",
        r"steps +3",
        r"network calls +2 \(mean of a candidate\)",
        r"sampler +cedi",
        r"candidates +length beam 3 \(top_k\) x noise beam 2 = 6",
        r"selection +score",
        r"AR rescoring +no",
        r"prune after +1",
        r"seed +1",
    ):
        assert re.search(rf"^\| {said}$", block, re.MULTILINE), said


def test_an_oracle_stands_out(data: Path, ours: Path, tmp_path: Path):
    text, report = reported(data, ours, tmp_path, "--oracle-length --noise-beam 2")
    assert report["decoding"]["oracle_length"] is True
    assert "FOR ANALYSIS ONLY" in text and "length beam ORACLE length x noise beam 2 = 2" in text


def test_averaged_weights_are_told(data: Path, checkpoint: Path, tmp_path: Path):
    _, report = reported(data, checkpoint, tmp_path, "--use-ema")
    assert report["checkpoints"][0]["ema"] is True and "EMA weights" in render(report)


def test_sacrebleu_is_the_librarys(data: Path, ours: Path, raw: Path, tmp_path: Path):
    text, report = reported(data, ours, tmp_path, f"--raw-reference {raw}")
    metric, moses = BLEU(), MosesDetokenizer("b")
    said = [moses.detokenize(hypotheses(text)[str(i)][0][0].split()) for i in range(N)]
    expected = metric.corpus_score(said, [raw.read_text().splitlines()])
    score = report["scores"]["sacrebleu"]
    assert 0 < score["bleu"] < 100 and score["bleu"] == pytest.approx(expected.score)
    assert score["signature"] == str(metric.get_signature()) and score["signature"] in text
    assert (score["sentences"], score["missing"], score["reference"]) == (N, 0, str(raw))
    assert score["length_ratio"] == pytest.approx(expected.ratio)


def test_tokenised_bleu_is_the_librarys(data: Path, ours: Path, tmp_path: Path):
    text, report = reported(data, ours, tmp_path, "--iter-decode-with-beam 2 --nbest 2")
    said = [hypotheses(text)[str(i)][0][0] for i in range(N)]
    wanted = [lines(text, "T")[str(i)][0][0] for i in range(N)]
    expected = BLEU(tokenize="none", force=True).corpus_score(said, [wanted])
    assert report["scores"]["tokenised"]["bleu"] == pytest.approx(expected.score) and expected.score > 0
    assert report["scores"]["sacrebleu"] == {"unavailable": "no --raw-reference was given"}


@pytest.mark.parametrize("count", [N - 1, N + 1])
def test_raw_references_of_another_subset_are_refused_before_decoding(
    data: Path, ours: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    (tmp_path / "raw").write_text("".join(f"{line}\n" for line in (raw.read_text().splitlines() * 2)[:count]))
    monkeypatch.setattr(DiffusionTranslationTask, "inference_step", lambda *_, **__: pytest.fail("decoding began"))
    with pytest.raises(UserError, match=f"has {count} lines, but the subset test has {N} sentences"):
        generate(data, ours, f"--raw-reference {tmp_path / 'raw'}")


def test_shards_report_their_share(data: Path, ours: Path, raw: Path, tmp_path: Path):
    """Each its own file: the two make up the subset, and each scores its own sentences alone."""
    shares = []
    for rank in (0, 1):
        shard = f"--distributed-world-size 2 --distributed-rank {rank} --results-path {tmp_path / str(rank)}"
        generate(data, ours, f"--raw-reference {raw} {shard}")
        shares.append(read(tmp_path / str(rank) / f"generate-test.shard-{rank}-of-2.json"))
    assert sum(share["data"]["decoded"] for share in shares) == N
    for share in shares:
        score = share["scores"]["sacrebleu"]
        assert score["shard_alone"] is True and score["sentences"] == share["data"]["decoded"] > 0


def test_a_later_report_takes_the_place_of_an_earlier(data: Path, ours: Path, tmp_path: Path):
    _, first = reported(data, ours, tmp_path)
    _, second = reported(data, ours, tmp_path, "--seed 2")
    assert (first["decoding"]["seed"], second["decoding"]["seed"]) == (1, 2)
