"""Training on the command line: what a checkpoint holds, what is logged, and that going on equals not stopping."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from sacremoses import MosesDetokenizer
from support import DEFAULT_WORKERS, TINY, TINY_WORDS, call, different, generate, hypotheses, read, training

from fairseq_diffusion.alignment.base import Words
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder

# what a model learns or knows beside its weights
LEARNT = "--time-sampler second_moment --schedule-modifier spindle --store-ema --ema-decay 0.9"


@pytest.mark.parametrize(
    "flags, cut_at",
    [
        ("--schedule-update 9 --disable-validation", 18),
        ("--schedule-update 7 --update-freq 2 --disable-validation", 19),
        ("--arch mdlm_toy --disable-validation", 18),
        (f"--arch mdlm_toy --disable-validation {LEARNT}", 18),
        ("--arch mdlm_toy --disable-validation --frequency-contrast 0.5", 18),
        ("--arch mdlm_toy --length-target durations --length-grad --disable-validation", 18),
        ("--arch cdcd_toy --canvas-positions 12 --schedule-update 9 --disable-validation", 18),
        ("--arch seqdiffuseq_toy --canvas-positions 12 --schedule-update 4 --disable-validation", 18),
        ("--arch plaid_toy --canvas-positions 12 --schedule-update 9 --disable-validation", 18),
        ("--arch lddm_seq_toy --latents-start 27 --latents-noise 0.1 --disable-validation", 18),
        ("--arch lddm_fuji_toy --latents-start 18 --latents-own-time --disable-validation", 18),
        ("--arch lddm_seq_toy --latents-start 18 --latents-contrast 0.1 --disable-validation", 18),
        (DEFAULT_WORKERS, 18),
        (DEFAULT_WORKERS, 20),
    ],
)
def test_resumed_training_equals_the_uninterrupted_one(data: Path, tmp_path: Path, flags: str, cut_at: int):
    """Cut inside an epoch, or at its end (20), with dropout; the schedule is due at the cut (9) or not (7)."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags += " --dropout 0.1 --self-conditioning random --no-epoch-checkpoints"
    size = TINY_WORDS if "mdlm" in flags or "lddm" in flags else TINY
    call("train", *training(data, whole, f"{flags} --max-update 36", size=size))
    call("train", *training(data, cut, f"{flags} --max-update {cut_at}", size=size))
    at_the_cut = read(cut / "checkpoint_last.pt")
    torch.manual_seed(99)  # a new process starts anywhere
    call("train", *training(data, cut, f"{flags} --max-update 36", size=size))
    whole_state, cut_state = (read(folder / "checkpoint_last.pt") for folder in (whole, cut))
    assert whole_state["optimizer_history"][-1]["num_updates"] == 36
    for part in ("model", "last_optimizer_state"):
        assert different(whole_state[part], cut_state[part]) == []
        assert different(at_the_cut[part], cut_state[part]) != []
    assert whole_state["model"].get("translator.schedule.modifier.sigma_min", 1) > 0


def test_a_training_that_is_done_is_left_as_it_is(data: Path, tmp_path: Path):
    """In the middle of an epoch; and with more updates it goes on."""
    for updates, expected in ((3, 3), (3, 3), (4, 4)):
        call("train", *training(data, tmp_path, f"--max-update {updates} --no-epoch-checkpoints --disable-validation"))
        assert read(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == expected


def final(log: str, key: str) -> list[float]:
    """Every value of a key in the JSON lines of a log."""
    return [float(value) for value in re.findall(rf'"{key}": "([-\d.e]+)"', log)]


def test_checkpoint_loads_under_the_safe_default(checkpoint: Path):
    """Trained with BLEU and EMA, whose traces a checkpoint keeps too."""
    state = read(checkpoint)
    assert state["model"].keys() == state["extra_state"]["ema"].keys()
    assert state["model"]["translator.schedule.modifier.sigma_min"].dtype == torch.float64


def test_best_checkpoints_are_chosen_by_bleu(trained: Path):
    scores = {path: read(path)["extra_state"]["val_loss"] for path in trained.glob("checkpoint?.pt")}
    kept = [read(path)["extra_state"]["val_loss"] for path in trained.glob("checkpoint.best_bleu_*.pt")]
    assert len(scores) == 4 and len(kept) == 2
    assert sorted(kept) == sorted(scores.values())[-2:]
    assert read(trained / "checkpoint_best.pt")["extra_state"]["val_loss"] == max(scores.values())


def test_bleu_is_logged_even_for_empty_outputs(data: Path, checkpoint: Path, tmp_path: Path, monkeypatch):
    words = DiffusionDecoder._words

    def none(*given: Any) -> Words:
        return words(*given)._replace(mask=torch.zeros_like(given[-1].mask))

    monkeypatch.setattr(DiffusionDecoder, "_words", none)
    log = tmp_path / "log"
    flags = "--eval-bleu --eval-bleu-remove-bpe --best-checkpoint-metric bleu --maximize-best-checkpoint-metric "
    flags += f"--max-update 3 --no-epoch-checkpoints --log-format json --log-file {log}"
    call("train", *training(data, tmp_path / "save", flags))
    assert final(log.read_text(), "valid_bleu") == [0.0]


def test_bleu_during_training_is_that_of_sacrebleu(data: Path, corpus: Path, learned: Path):
    """Over several batches, from the words that fairseq-generate gives with the settings of --eval-bleu-args."""
    flags = "--gen-subset valid --iter-decode-max-iter 4 --iter-decode-with-beam 2"
    found = hypotheses(generate(data, learned / "checkpoint_last.pt", flags))
    detokenize = MosesDetokenizer("en").detokenize
    ours = [detokenize(found[str(i)][0][0].split()) for i in range(len(found))]
    references = [detokenize(line.split()) for line in (corpus / "valid.b").read_text().splitlines()]
    expected = sacrebleu.corpus_bleu(ours, [references], force=True).score
    assert expected > 0
    assert final((learned / "log").read_text(), "valid_bleu")[-1] == pytest.approx(expected, abs=0.011)


def test_curves_are_written_for_tensorboard(trained: Path):
    """Event files store names as plain bytes; reading their values would need another package."""
    events = b"".join(path.read_bytes() for path in (trained / "curves").rglob("events.*"))
    for name in (b"sigma_min", b"mse_noise_90", b"length_accuracy", b"rounding", b"bleu"):
        assert name in events, name


def test_errors_by_noise_stop_at_the_clip(data: Path, tmp_path: Path):
    """With noise below 0.7 clipped (plus_one), no band below it is ever logged."""
    log = tmp_path / "log"
    flags = "--schedule-modifier clip_plus_one --max-update 10 --no-save --log-format json --log-interval 1"
    call("train", *training(data, tmp_path / "save", f"{flags} --disable-validation --log-file {log}"))
    bands = set(re.findall(r'"(?:train_)?mse_noise_(\d\d)"', log.read_text()))
    assert bands and bands <= {"70", "80", "90"}


@pytest.mark.parametrize("mode, frozen", [("only", "rest"), ("off", "length")])
def test_two_stage_length_training(data: Path, checkpoint: Path, tmp_path: Path, mode: str, frozen: str):
    flags = f"--length-training {mode} --length-grad --finetune-from-model {checkpoint}"
    flags += " --max-update 5 --weight-decay 0.1 --disable-validation --schedule-update 2"
    call("train", *training(data, tmp_path, flags))
    changed = different(read(checkpoint)["model"], read(tmp_path / "checkpoint_last.pt")["model"])
    weights = [key for key in changed if ".schedule." not in key]  # sigma_min follows the embeddings
    assert {"length" if ".length." in key else "rest" for key in weights} == {"length", "rest"} - {frozen}
