"""Decoding that begins with the translation of another model on --path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import SIZES
from support import TINY_BLOCKS, TINY_WORDS, call, generate, hypotheses, same_hypotheses, training

from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError

RERANKER = "--iter-decode-with-external-reranker"


@pytest.fixture(scope="module")
def one_pass(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> dict[str, Path]:
    found = {}
    for kind, arch in {"ctc": "diffglat_toy_ctc", "masked": "cmlm_toy"}.items():
        found[kind] = tmp_path_factory.mktemp(kind) / "checkpoint_last.pt"
        flags = "--max-update 60 --lr 1e-2 --no-epoch-checkpoints --disable-validation --upsample 3 --blocks 1"
        call("train", *training(data, found[kind].parent, flags, arch, size=TINY_BLOCKS))
    return found


def test_a_diffusion_model_begins_with_what_one_pass_wrote(data: Path, learned: Path, one_pass: dict[str, Path]):
    ours, draft = learned / "checkpoint_last.pt", one_pass["ctc"]
    output = generate(data, f"{ours}:{draft}", "--draft 0.7")
    assert len(hypotheses(output)) == SIZES["test"]
    assert same_hypotheses(generate(data, f"{ours}:{draft}", "--draft 0.7 --batch-size 1"), output)
    assert not same_hypotheses(generate(data, f"{ours}:{draft}", "--draft 0.2"), output)
    assert not same_hypotheses(generate(data, draft, steps=""), output)


def test_a_model_of_words_keeps_what_it_does_not_hide(data: Path, learned: Path, tmp_path: Path):
    """As many words change as were hidden, at most; and with nearly nothing hidden it is the draft."""
    flags = "--max-update 40 --lr 1e-2 --no-epoch-checkpoints --disable-validation"
    call("train", *training(data, tmp_path, flags, "mdlm_toy", size=TINY_WORDS))
    ours, draft = tmp_path / "checkpoint_last.pt", learned / "checkpoint_last.pt"
    begun = hypotheses(generate(data, draft, steps="--iter-decode-max-iter 20"))
    changed = {}
    for share in (0.01, 0.5, 1.0):
        output = generate(data, f"{ours}:{draft}", f"--draft {share} --sampler confidence")
        pairs = [(begun[i][0][0].split(), found[0][0].split()) for i, found in hypotheses(output).items()]
        assert all(len(one) == len(other) for one, other in pairs)
        changed[share] = sum(a != b for pair in pairs for a, b in zip(*pair)) / sum(len(one) for one, _ in pairs)
        again = generate(data, f"{ours}:{draft}", f"--draft {share} --sampler confidence --batch-size 1")
        assert same_hypotheses(again, output)
    assert changed[0.01] < 0.1 and changed[0.01] < changed[0.5] < changed[1.0]


def test_mask_predict_begins_with_what_diffusion_wrote(data: Path, learned: Path, one_pass: dict[str, Path]):
    """The other way round: the dictionary of one has a mask, the other's has none; and a teacher chooses nothing."""
    ours, draft = one_pass["masked"], learned / "checkpoint_last.pt"
    output = generate(data, f"{ours}:{draft}", "--draft 0.5 --passes 2", steps="")
    assert same_hypotheses(generate(data, f"{ours}:{draft}", "--draft 0.5 --passes 2 --batch-size 1", steps=""), output)
    assert not same_hypotheses(generate(data, ours, "--passes 2", steps=""), output)


def test_the_report_and_a_teacher(data: Path, learned: Path, one_pass: dict[str, Path], teacher: Path, tmp_path: Path):
    path = f"{learned / 'checkpoint_last.pt'}:{one_pass['ctc']}:{teacher}"
    flags = f"--draft 0.4 --noise-beam 3 {RERANKER}"
    assert re.search(r"\| draft  +begins at 0.4, calls 1, alignment ctc, passes 1", generate(data, path, flags))
    generate(data, path, f"{flags} --results-path {tmp_path}")
    said = reporting.read(tmp_path / "generate-test.json")["decoding"]
    assert said["rescored"] and said["calls"] == 3 and said["noise_beam"] == 3
    assert (said["draft"]["begins_at"], said["draft"]["calls"], said["draft"]["alignment"]) == (0.4, 1, "ctc")


def test_drafts_that_make_no_sense(data: Path, learned: Path, one_pass: dict[str, Path], teacher: Path):
    ours = learned / "checkpoint_last.pt"
    for path, flags, words in (
        (ours, "--draft 0.5", "--draft asks for --path OURS.pt:DRAFT.pt"),
        (f"{ours}:{teacher}", "--draft 0.5", "the second checkpoint on --path is another"),
        (f"{ours}:{one_pass['ctc']}", "--draft 0.5 --iter-decode-with-beam 2", "so with its length"),
        (f"{ours}:{one_pass['ctc']}", "", "names 2 checkpoints"),
    ):
        with pytest.raises(UserError, match=words):
            generate(data, path, flags)
    with pytest.raises(UserError, match="a model with --alignment ctc has none"):
        generate(data, f"{one_pass['ctc']}:{ours}", "--draft 0.5", steps="")
