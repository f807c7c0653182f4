"""fairseq's own NAT models, converted: the same words in one pass and in several."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import binarise
from support import call, different, generate, hypotheses, read, training

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.from_fairseq import configuration

NETWORK = "--encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --encoder-attention-heads 2 --encoder-layers 2 "
NETWORK += "--decoder-attention-heads 2 --decoder-layers 2 --share-decoder-input-output-embed --dropout 0.1"
SCHEDULE = "--optimizer adam --lr 5e-3 --max-update 150 --batch-size 20 --cpu --num-workers 0 --disable-validation"
TRAINED = {  # their model, the noise of its training, and what differs from its defaults
    "cmlm": ("cmlm_transformer", "random_mask", ""),
    "cmlm_other": (
        "cmlm_transformer",
        "random_mask",
        "--pred-length-offset --encoder-normalize-before --decoder-normalize-before --encoder-learned-pos "
        "--decoder-learned-pos --activation-fn gelu",
    ),
    "nat": ("nonautoregressive_transformer", "full_mask", "--pred-length-offset --sg-length-pred"),
}


@pytest.fixture(scope="module")
def joined(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return binarise(corpus, tmp_path_factory.mktemp("joined"), "--joined-dictionary")


@pytest.fixture(scope="module", params=TRAINED)
def theirs(request: pytest.FixtureRequest, joined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of fairseq's task and model."""
    arch, noise, other = TRAINED[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    flags = f"--task translation_lev --criterion nat_loss --arch {arch} --noise {noise} {NETWORK} {SCHEDULE} {other}"
    call("train", joined, *flags.split(), "--save-dir", folder, "--no-epoch-checkpoints", "--no-progress-bar")
    return folder / "checkpoint_last.pt"


@pytest.fixture
def ours(theirs: Path, joined: Path, tmp_path: Path) -> Path:
    assert main(["convert", str(theirs), "--data", str(joined), "--output", str(tmp_path / "ours.pt")]) == 0
    return tmp_path / "ours.pt"


def test_the_same_words(theirs: Path, ours: Path, joined: Path):
    """By mask-predict in one pass and in several; their NAT has one."""
    for passes in (1, 4, 10) if theirs.parent.name.startswith("cmlm") else (1,):
        steps = f"--iter-decode-max-iter {passes - 1} --iter-decode-force-max-iter"
        flags = f"--task translation_lev --path {theirs} --gen-subset test --batch-size 8 --remove-bpe --cpu {steps} "
        flags += "--required-batch-size-multiple 1 --num-workers 0"
        expected = hypotheses(call("generate", joined, *flags.split()))
        found = hypotheses(generate(joined, ours, f"--passes {passes}", steps=""))
        assert len(found) == len(expected) == 11
        assert {i: text for i, ((text, _),) in found.items()} == {i: text for i, ((text, _),) in expected.items()}
        assert len({text for ((text, _),) in found.values()}) > 5


def test_it_is_a_checkpoint_like_any_other(ours: Path, joined: Path, tmp_path: Path):
    """It may be averaged, and trained on with our task."""
    assert main(["average", "--inputs", str(ours), str(ours), "--output", str(tmp_path / "average.pt")]) == 0
    assert generate(joined, tmp_path / "average.pt", steps="").count("H-") == 11
    assert read(ours)["task_state"].keys() == {"source", "target", "languages"}
    size = "--hidden 32 --inner 64 --heads 2 --encoder-layers 2 --decoder-layers 2".split()
    fields = read(ours)["cfg"]["model"]
    like = f"--length-map linear --length-target {fields['length_target']} --scale-embeddings --no-entry-norm "
    like += f"--max-source-positions 1023 --max-target-positions 1023 --activation {fields['activation']} "
    like += "--share-embeddings " if fields["share_embeddings"] else ""
    like += "--pre-norm " if fields["pre_norm"] else "--no-encoder-norm "
    more = f"{like} --finetune-from-model {ours} --max-update 1 --lr 0 --no-epoch-checkpoints --disable-validation"
    call("train", *training(joined, tmp_path / "more", more, "cmlm_toy", size=size))
    assert different(read(tmp_path / "more/checkpoint_last.pt")["model"], read(ours)["model"]) == []


def test_what_has_no_like_here_is_refused(theirs: Path, joined: Path, tmp_path: Path, capsys):
    state = read(theirs)
    arguments = state["cfg"]["model"]
    assert configuration(arguments)["hidden"] == 32
    arguments.src_embedding_copy = True
    with pytest.raises(UserError, match="--src-embedding-copy, and source embeddings in place of the mask"):
        configuration(arguments)
    arguments.src_embedding_copy = arguments.share_decoder_input_output_embed = arguments.share_all_embeddings = False
    with pytest.raises(UserError, match="without --share-decoder-input-output-embed"):
        configuration(arguments)
    state["model"]["decoder.embed_tokens.weight"] = torch.zeros(7, 32)
    arguments.share_decoder_input_output_embed = True
    torch.save(state, tmp_path / "other.pt")
    assert main(["convert", str(tmp_path / "other.pt"), "--data", str(joined), "--output", str(tmp_path / "x.pt")]) == 2
    assert "do not fit the dictionaries" in capsys.readouterr().err and not (tmp_path / "x.pt").exists()


def test_another_model_is_refused(checkpoint: Path, data: Path, tmp_path: Path, capsys):
    assert main(["convert", str(checkpoint), "--data", str(data), "--output", str(tmp_path / "x.pt")]) == 2
    assert "these can: cmlm_transformer, nonautoregressive_transformer" in capsys.readouterr().err
