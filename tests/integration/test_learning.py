"""A task learned to a threshold, with the programs that a user calls."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from commands import ROOT
from conftest import binarise
from fairseq.models import ARCH_MODEL_REGISTRY
from support import call, decoding, hypotheses, lines

import fairseq_diffusion
from fairseq_diffusion.systems.presets import PRESETS

NETWORK = "--hidden 64 --inner 128 --heads 4 --encoder-layers 2 --decoder-layers 2 --dropout 0"
SCHEDULE = "--lr 3e-3 --lr-scheduler polynomial_decay"
STEPS, CTC, DAG = "--iter-decode-max-iter 20", "--upsample 3", "--upsample 3"
LEARNERS = {  # flags of the smallest system that is safe to learn it, updates, and flags of its decoding
    "dinoiser_toy": ("--latent-dim 16", 400, STEPS),
    "difformer_toy": ("--latent-dim 64", 400, STEPS),
    "cdcd_toy": ("--latent-dim 16 --canvas-positions 8", 400, "--iter-decode-max-iter 10"),
    "diffuseq_toy": ("--latent-dim 64 --canvas-positions 8 --decoder-layers 4", 500, STEPS),
    "diffuseq_v2_toy": ("--latent-dim 64 --canvas-positions 8 --decoder-layers 4", 350, STEPS),
    "seqdiffuseq_toy": ("--latent-dim 64 --canvas-positions 8 --schedule-update 100", 600, "--iter-decode-max-iter 20"),
    "sed_toy": ("--latent-dim 16 --canvas-positions 8", 650, STEPS),
    "genie_toy": ("--latent-dim 64 --canvas-positions 8", 750, STEPS),
    "plaid_toy": ("--canvas-positions 8", 400, STEPS),
    "mdlm_toy": ("", 250, "--iter-decode-max-iter 4 --sampler confidence"),
    "lddm_seq_toy": ("--latents-start 50", 400, "--iter-decode-max-iter 4 --sampler confidence"),
    "lddm_fuji_toy": ("--latents-start 50", 400, "--iter-decode-max-iter 4 --sampler confidence"),
    "sundae_toy": ("", 400, "--iter-decode-max-iter 4"),
    "rdm_toy_absorb": ("", 250, "--iter-decode-max-iter 4"),
    "rdm_toy_uniform": ("--clip-norm 1", 600, "--iter-decode-max-iter 10"),
    "sedd_toy_absorb": ("", 400, "--iter-decode-max-iter 4 --sampler confidence"),
    "sedd_toy_uniform": ("--clip-norm 1", 400, "--iter-decode-max-iter 20 --word-temperature 0.3"),
    "vq_diffusion_toy": ("", 400, "--iter-decode-max-iter 20 --top-p 0.86"),
    "diffusionbert_toy": ("", 400, "--iter-decode-max-iter 4 --sampler confidence"),
    "ddcap_toy": ("", 250, "--iter-decode-max-iter 4"),
    "d3pm_toy_absorb": ("", 400, "--iter-decode-max-iter 4 --sampler confidence"),
    "d3pm_toy_uniform": ("", 400, "--iter-decode-max-iter 20 --word-temperature 0.3"),
    "ddpm_nmt_toy": ("", 400, "--iter-decode-max-iter 20 --word-temperature 0.3"),
    "nat_toy": ("", 150, ""),
    "glat_toy": ("", 150, ""),
    "latent_nat_toy": ("--latents-start 50", 400, ""),
    "latent_nat_toy_ctc": (f"--latents-start 50 {CTC}", 450, ""),
    "latent_nat_toy_dag": (f"--latents-start 50 {DAG}", 400, ""),
    "glat_toy_ctc": (CTC, 450, ""),
    "dslp_toy": ("--blocks 2", 150, ""),
    "dslp_toy_ctc": (f"--blocks 2 {CTC}", 450, ""),
    "cmlm_toy": ("", 200, "--passes 4"),
    "diffglat_toy": ("--blocks 2", 150, ""),
    "diffglat_toy_ctc": (f"--blocks 2 {CTC}", 450, ""),
    "diffglat_toy_dag": (f"--blocks 2 {DAG}", 150, ""),
    "da_transformer_toy": (DAG, 150, ""),
}


@pytest.fixture(scope="module")
def reversals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters, and the same in capitals from the last to the first, binarised; and joined/, with one dictionary."""
    folder, rng = tmp_path_factory.mktemp("reversals"), random.Random(1)
    for split, size in (("train", 8000), ("valid", 50), ("test", 100)):
        rows = [[rng.choice("abcdef") for _ in range(rng.randint(2, 5))] for _ in range(size)]
        (folder / f"{split}.a").write_text("".join(" ".join(row) + "\n" for row in rows))
        (folder / f"{split}.b").write_text("".join(" ".join(row[::-1]).upper() + "\n" for row in rows))
    binarise(folder, folder / "joined", "--joined-dictionary")
    return binarise(folder, folder / "bin")


def test_every_architecture_has_a_learner():
    fairseq_diffusion.load()
    assert set(LEARNERS) == {name for name in ARCH_MODEL_REGISTRY if "_toy" in name}


@pytest.mark.slow
@pytest.mark.parametrize("arch", LEARNERS)
def test_a_system_learns_to_reverse(reversals, tmp_path, arch):
    learns_to_reverse(reversals, tmp_path, arch, *LEARNERS[arch])


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["mdlm_toy", "difformer_toy"])
def test_lengths_are_learnt_on_a_canvas(reversals, tmp_path, arch):
    """Of which half or more is to be filled."""
    own, updates, steps = LEARNERS[arch]
    canvas = f"{own} --length-target canvas --canvas-positions 4 --canvas-scale 2"
    learns_to_reverse(reversals, tmp_path, arch, canvas, updates, steps)


def learns_to_reverse(reversals: Path, tmp_path: Path, arch: str, own: str, updates: int, steps: str) -> None:
    flags = ["--task", "diffusion_translation", "--criterion", "diffusion_loss", "--arch", arch, *own.split()]
    schedule = f"{SCHEDULE} --warmup-updates {updates // 10} --max-update {updates} --total-num-update {updates}"
    optimiser = "--optimizer adam --batch-size 64 --cpu --no-epoch-checkpoints --num-workers 0".split()
    data = reversals.with_name("joined") if PRESETS[arch].fields.get("share_embeddings") else reversals
    where = [data, "--user-dir", ROOT / "fairseq_diffusion", "--save-dir", tmp_path / "checkpoints"]
    call("train", *where, *flags, *NETWORK.split(), *schedule.split(), *optimiser)
    last = tmp_path / "checkpoints/checkpoint_last.pt"
    printed = call("generate", *decoding(data, last, "--batch-size 50", steps))
    said, meant = hypotheses(printed), lines(printed, "T")
    right = sum(said[i][0][0] == meant[i][0][0] for i in meant)
    assert len(meant) == 100
    assert right >= 90
