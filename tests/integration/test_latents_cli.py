"""Latents with the programs that a user calls: generate, interactive, Python, and a training from a model without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SIZES
from support import TINY_BLOCKS, TINY_WORDS, call, generate, hypotheses, lines, read, same_hypotheses, training

import fairseq_diffusion
from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.diffusion_translation import DiffusionTranslationTask

STEP = "--max-update 20 --lr 1e-2 --no-epoch-checkpoints"
SYSTEMS = {  # flags and size of a training, and flags of its decoding
    "lddm_seq_toy": ("--latents-start 10 --latents-source-drop 0.1", TINY_WORDS, "--iter-decode-max-iter 2"),
    "latent_nat_toy_ctc": ("--latents-start 10 --upsample 3", TINY_BLOCKS, ""),
}


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> dict[str, Path]:
    found = {}
    for arch, (flags, size, _) in SYSTEMS.items():
        found[arch] = tmp_path_factory.mktemp(arch) / "checkpoint_last.pt"
        call("train", *training(data, found[arch].parent, f"{flags} {STEP}", arch, size=size))
    return found


@pytest.mark.parametrize("arch", SYSTEMS)
def test_candidates_have_latents_of_their_own(data: Path, models: dict[str, Path], arch: str, tmp_path: Path):
    """Whatever the batch; other steps make other latents; and calls of both chains are reported."""
    steps, flags = SYSTEMS[arch][2], f"--latents-steps 4 --noise-beam 3 --selection mbr --results-path {tmp_path}"
    generate(data, models[arch], flags, steps=steps)
    report = reporting.read(tmp_path / "generate-test.json")["decoding"]
    output = (tmp_path / "generate-test.txt").read_text()
    assert len(hypotheses(output)) == SIZES["test"]
    assert 4 < report["calls"] <= 6 and report["latents_steps"] == 4 and report["latents_guidance"] == 1
    one_by_one = flags.partition(" --results-path")[0] + " --batch-size 1"
    assert same_hypotheses(generate(data, models[arch], one_by_one, steps=steps), output)
    other = generate(data, models[arch], "--latents-steps 9", steps=steps)
    for flags in ("--latents-steps 4", "--latents-steps 0"):
        assert not same_hypotheses(generate(data, models[arch], flags, steps=steps), other, tolerance=0)


def test_guidance_makes_other_latents(data: Path, models: dict[str, Path]):
    steps = SYSTEMS["lddm_seq_toy"][2]
    plain, guided = (generate(data, models["lddm_seq_toy"], f"--latents-guidance {w}", steps=steps) for w in ("1", "3"))
    assert not same_hypotheses(plain, guided, tolerance=0)


@pytest.mark.parametrize("arch", SYSTEMS)
def test_python_translates_alike(data: Path, models: dict[str, Path], arch: str):
    output = generate(data, models[arch], "--latents-steps 4 --remove-bpe none", steps=SYSTEMS[arch][2])
    model = fairseq_diffusion.load(models[arch], data=data, device="cpu")
    sources = {i: found[0][0] for i, found in lines(output, "S").items()}
    own = {"steps": 2} if arch == "lddm_seq_toy" else {}
    found = model.translate(list(sources.values()), latents_steps=4, **own)
    assert [each.text for each in found] == [hypotheses(output)[i][0][0] for i in sources]


@pytest.mark.parametrize(
    "arch, own", [("lddm_seq_toy", ""), ("lddm_fuji_toy", ""), ("lddm_fuji_toy", "--self-conditioning random")]
)
def test_latents_are_learnt_from_a_model_without(data: Path, tmp_path: Path, trains: None, arch: str, own: str):
    """Whose words are as they were; a model with latents cannot become one without."""
    call("train", *training(data, tmp_path / "words", f"{STEP} --store-ema {own}", "mdlm_toy", size=TINY_WORDS))
    start = tmp_path / "words/checkpoint_last.pt"
    flags = f"--finetune-from-model {start} --max-update 1 --lr 0 --no-epoch-checkpoints --store-ema {own}"
    call("train", *training(data, tmp_path / "both", flags, arch, size=TINY_WORDS))
    words, both = (read(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("words", "both"))
    renamed = {name.replace("enter.condition", "enter.words.condition"): weight for name, weight in words.items()}
    same = renamed if "fuji" in arch else words
    assert all(torch.equal(both[name], weight) for name, weight in same.items())
    assert any("latents" in name for name in both.keys() - same.keys())
    back = f"--finetune-from-model {tmp_path / 'both/checkpoint_last.pt'} --max-update 1 {own}"
    with pytest.raises(UserError, match="latents|places"):
        call("train", *training(data, tmp_path / "back", back, "mdlm_toy", size=TINY_WORDS))


def test_validation_says_what_latents_are_worth(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Those that the chain makes as soon as it is learnt."""
    for start, learnt in ((0, True), (2, False)):  # what is learnt last is update 1, counted from 0
        caplog.clear()
        flags = f"--max-update 2 --lr 1e-9 --latents-start {start} --no-epoch-checkpoints"
        call("train", *training(data, tmp_path / str(start), flags, "lddm_seq_toy", size=TINY_WORDS))
        assert "| latents_gain" in caplog.text and ("| latents_made_gain" in caplog.text) == learnt


@pytest.mark.parametrize(
    "gain, learnt, warned", [(-0.25, True, True), (0.009, True, True), (0.011, True, False), (0.0, False, False)]
)
def test_latents_that_words_do_without_are_said(
    gain: float, learnt: bool, warned: bool, caplog: pytest.LogCaptureFixture
):
    """As soon as they are learnt; and a model without latents has no gain."""
    task = DiffusionTranslationTask.__new__(DiffusionTranslationTask)
    task._last_batches = SimpleNamespace(close=lambda: None)
    task.post_validate(None, {"latents_gain": gain, **({"latents_made_gain": 0.5} if learnt else {})}, None)
    assert (f"the loss of a word by {gain:.4f} in validation" in caplog.text) == warned
    task.post_validate(None, {}, None)


def test_a_model_with_latents_learns_to_do_without_its_source(data: Path, tmp_path: Path, trains: None):
    """Which takes one more vector than the checkpoint has."""
    call("train", *training(data, tmp_path / "a", STEP, "lddm_seq_toy", size=TINY_WORDS))
    more = f"--finetune-from-model {tmp_path / 'a/checkpoint_last.pt'} --latents-source-drop 0.1 {STEP}"
    call("train", *training(data, tmp_path / "b", more, "lddm_seq_toy", size=TINY_WORDS))
    assert "translator.latents.null" in read(tmp_path / "b/checkpoint_last.pt")["model"]
