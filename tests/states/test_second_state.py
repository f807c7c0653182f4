"""A second state trains and decodes through the task, although nothing but states, samplers and a preset is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import decoding, hypotheses, process, training

ABSORBING = Path(__file__).with_name("absorbing")
SIZE = "--hidden 32 --inner 64 --heads 2 --encoder-layers 1 --decoder-layers 2".split()
UPDATES = "--max-update 300 --lr 5e-3 --no-epoch-checkpoints --disable-validation"
OWN = ["--user-dir", ABSORBING]


@pytest.fixture(scope="module")
def absorbing(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("absorbing")
    trained = process("train", *training(data, folder, UPDATES, "absorbing_toy", size=SIZE), *OWN)
    assert trained.returncode == 0, trained.stderr[-2000:]
    return folder / "checkpoint_last.pt"


def generated(data: Path, checkpoint: Path, flags: str = "") -> str:
    """fairseq-generate's output of the training set, which is to be learnt by heart."""
    output = process("generate", *decoding(data, checkpoint, f"{flags} --gen-subset train"), *OWN)
    assert output.returncode == 0, output.stderr[-2000:]
    return output.stdout


@pytest.mark.slow
def test_it_learns(data: Path, absorbing: Path):
    """Words that the references have, too: a model that ignored the source or the mask would have few."""
    output = generated(data, absorbing)
    references = {
        line.split("\t")[0][2:]: line.split("\t")[1].split() for line in output.splitlines() if line[:2] == "T-"
    }
    right = total = 0
    for sentence, ((text, _), *_) in hypotheses(output).items():
        right += sum(word == other for word, other in zip(text.split(), references[sentence]))
        total += len(references[sentence])
    assert right / total > 0.8


@pytest.mark.slow
def test_candidates_differ_by_their_noise_and_may_leave_early(data: Path, absorbing: Path):
    several = hypotheses(generated(data, absorbing, "--noise-beam 3 --nbest 3"))
    assert any(len(found) > 1 for found in several.values())
    pruned = hypotheses(generated(data, absorbing, "--noise-beam 4 --prune-after 2 --stop-stable 1 --nbest 4"))
    assert all(1 <= len(found) <= 2 for found in pruned.values())


@pytest.mark.slow
def test_a_sampler_of_another_family_is_refused(data: Path, absorbing: Path):
    refused = process("generate", *decoding(data, absorbing, "--sampler ddim"), *OWN)
    assert "--sampler ddim is for gaussian states, but this model's are hidden words; choose one of: reveal" in (
        refused.stderr
    )
