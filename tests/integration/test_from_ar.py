"""Trainings that start from an AR Transformer of fairseq: the same functions, a report, no trace when they go on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import binarise
from fairseq import checkpoint_utils
from support import call, different, generate, hypotheses, read, training

import fairseq_diffusion
from fairseq_diffusion import compat
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.base import TranslatorModel

SIZES = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --encoder-ffn-embed-dim 32 "
SIZES += "--encoder-attention-heads 2 --decoder-attention-heads 2"
USUAL = "--optimizer adam --lr 1e-2 --cpu --batch-size 8 --max-update 6 --no-epoch-checkpoints --num-workers 0 "
USUAL += "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --disable-validation"
OURS = "--hidden 16 --inner 32 --heads 2 --encoder-layers 2 --decoder-layers 2 --scale-embeddings".split()
POST_NORM = "--activation relu --no-encoder-norm --no-entry-norm"
MODELS = {  # flags of the AR model and of ours; whether dictionary and embeddings are shared
    "post-norm": ("", POST_NORM, False),
    "pre-norm, learned positions": (
        "--encoder-normalize-before --decoder-normalize-before --encoder-learned-pos --decoder-learned-pos "
        "--activation-fn gelu --share-decoder-input-output-embed",
        "--activation gelu --pre-norm",
        False,
    ),
    "shared": ("--share-all-embeddings", f"{POST_NORM} --share-embeddings", True),
}
Starting = tuple[Path, Path, str]


@pytest.fixture(scope="module")
def joined(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return binarise(corpus, tmp_path_factory.mktemp("joined"), "--joined-dictionary")


def train_ar(data: Path, folder: Path, flags: str = "", task: str = "translation") -> Path:
    own = f"--task {task} --arch transformer {SIZES} {USUAL} --save-dir {folder} {flags}"
    if task == compat.OUR_TASK:
        own += f" --user-dir {Path(fairseq_diffusion.__file__).parent}"
    call("train", data, *own.split())
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module", params=MODELS)
def starting(request: pytest.FixtureRequest, data: Path, joined: Path, tmp_path_factory: Any) -> Starting:
    """Data, an AR checkpoint, and the flags of a network that is laid out like it."""
    theirs, ours, share = MODELS[request.param]
    of = joined if share else data
    return of, train_ar(of, tmp_path_factory.mktemp("ar"), theirs), ours


@pytest.fixture(scope="module")
def post_norm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_ar(data, tmp_path_factory.mktemp("post-norm"))


def start(data: Path, ar: Any, folder: Path, flags: str, arch: str = "mdlm_toy", more: str = "") -> Path:
    """A checkpoint of the first weights: with a rate of 0 they stay."""
    once = f"--max-update 1 --lr 0 --no-epoch-checkpoints --disable-validation {more}"
    call("train", *training(data, folder, f"{flags} --finetune-from-model {ar} {once}", arch, size=OURS))
    return folder / "checkpoint_last.pt"


def load(path: Path) -> Any:
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return model.eval().requires_grad_(False)


def sources(data: Path) -> torch.Tensor:
    """Two sentences [2, 7] of any words, the second padded on the left as fairseq does."""
    words = torch.randint(4, len((data / "dict.a.txt").read_text().splitlines()), (2, 7))
    words[:, -1], words[1, :2] = 2, 1
    return words


@pytest.mark.parametrize("arch", ["mdlm_toy", "d3pm_toy_uniform", "cmlm_toy", "dinoiser_toy"])
def test_the_encoder_computes_what_theirs_does(starting: Starting, tmp_path: Path, arch: str):
    """Words have the vectors and places that they had, behind a <s>, which is left out here."""
    data, ar, flags = starting
    if arch == "dinoiser_toy" and "--share-embeddings" in flags:
        pytest.skip("the table of a Gaussian model has another width")
    theirs, ours = load(ar), load(start(data, ar, tmp_path, flags, arch))
    assert isinstance(ours, TranslatorModel)
    words = sources(data)
    encoder = ours.translator.encoder
    encoder.positions.weight.copy_(encoder.positions.weight.roll(-1, 0))
    expected = theirs.encoder(words, words.ne(1).sum(-1))["encoder_out"][0].transpose(0, 1)
    mask = words.ne(1)
    torch.testing.assert_close(encoder(words, mask)[mask], expected[mask], rtol=0, atol=1e-5)
    assert expected[mask].std() > 0.1


@pytest.mark.parametrize("arch", ["mdlm_toy", "sedd_toy_uniform", "glat_toy"])
def test_the_decoder_computes_what_theirs_does_without_a_causal_mask(starting: Starting, tmp_path: Path, arch: str):
    """Layers, embeddings and positions, behind </s> as first word; where the network does not see the time."""
    data, ar, flags = starting
    theirs, ours = load(ar), load(start(data, ar, tmp_path, flags, arch))
    decoder = ours.translator.denoiser if hasattr(ours.translator, "denoiser") else ours.translator.decoder
    words, source, mask = sources(data).roll(1, -1)[:1], torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    memory = decoder.memory(source, mask)
    x = theirs.decoder.embed_scale * theirs.decoder.embed_tokens(words) + theirs.decoder.embed_positions(words)
    seen = torch.ones_like(words, dtype=torch.bool)
    if arch == "mdlm_toy":  # the whole network; and what it reads is the output projection
        h = ours.translator.denoiser(words, None, torch.zeros(1), seen, memory)
    for layer, theirs_layer, each in zip(decoder.layers, theirs.decoder.layers, memory):
        bias = torch.zeros(1, 1, 1, words.shape[1])
        found = layer(x, bias, each, torch.zeros(1, 16))
        x = theirs_layer(x.transpose(0, 1), source.transpose(0, 1))[0].transpose(0, 1)
        torch.testing.assert_close(found, x, rtol=0, atol=1e-5)
    if arch == "mdlm_toy":
        x = theirs.decoder.layer_norm(x) if theirs.decoder.layer_norm is not None else x
        torch.testing.assert_close(h, x, rtol=0, atol=1e-5)
        readout = ours.translator.state.readout()
        torch.testing.assert_close(readout, theirs.decoder.embed_tokens.weight)


def test_resumed_training_needs_no_ar_model(data: Path, post_norm: Path, tmp_path: Path):
    """It starts from its weights once; going on without the file equals not stopping, with averages and dropout."""
    ar = tmp_path / "ar.pt"
    shutil.copy(post_norm, ar)
    flags = f"{POST_NORM} --dropout 0.1 --no-epoch-checkpoints --disable-validation --store-ema --ema-decay 0.5"

    def train(name: str, updates: int) -> Any:
        own = f"{flags} --finetune-from-model {ar} --max-update {updates}"
        call("train", *training(data, tmp_path / name, own, "mdlm_toy", size=OURS))
        return read(tmp_path / name / "checkpoint_last.pt")

    whole, first = train("whole", 4), train("cut", 2)
    assert first["optimizer_history"][-1]["num_updates"] == 2 and len(first["optimizer_history"]) == 1
    ar.unlink()
    torch.manual_seed(99)
    cut = train("cut", 4)
    assert cut["optimizer_history"][-1]["num_updates"] == 4
    for part in ("model", "last_optimizer_state"):
        assert different(whole[part], cut[part]) == []
    assert different(whole["extra_state"]["ema"], cut["extra_state"]["ema"]) == []
    assert len(hypotheses(generate(data, tmp_path / "cut/checkpoint_last.pt"))) == 11


def test_a_sentence_lists_what_was_taken(data: Path, post_norm: Path, tmp_path: Path, caplog):
    with caplog.at_level(logging.INFO):
        first = read(start(data, post_norm, tmp_path, POST_NORM, "ddcap_toy", "--source-drop 0.1"))["model"]
    (said,) = [each for each in caplog.messages if "starts from the AR model" in each]
    taken, left, new = said.split("; ")
    assert "encoder.layers.*.fc1," in taken and "decoder.embed_tokens," in taken
    assert left == "not taken decoder.output_projection"  # which was not tied
    for name in ("null", "state.weight from row 24 on", "decoder.time.map.0", "length.map.0"):
        assert name in new
    assert "layers" not in new and "positions" not in new
    assert not torch.equal(first["translator.state.weight"][24], torch.zeros(16))


def test_shared_vectors_of_another_width_are_not_taken(joined: Path, tmp_path: Path, caplog):
    ar = train_ar(joined, tmp_path / "ar", "--share-all-embeddings")
    with caplog.at_level(logging.INFO):
        start(joined, ar, tmp_path / "ours", f"{POST_NORM} --share-embeddings", "difformer_toy")
    (said,) = [each for each in caplog.messages if "starts from the AR model" in each]
    taken, left, new = said.split("; ")
    assert "encoder.layers.*.fc1," in taken and "decoder" not in taken
    assert "encoder.embed_tokens" in left and "decoder.layers.*.fc1," in left
    assert "encoder.embedding.project," in new and "encoder.layers" not in new


@pytest.mark.parametrize("arch, parts", [("mdlm_toy", "encoder"), ("cmlm_toy", "embeddings, decoder")])
def test_parts_can_be_chosen(data: Path, post_norm: Path, tmp_path: Path, arch: str, parts: str):
    """A part that is not named starts as it does without the AR model, and may be laid out otherwise."""
    chosen = [arch, f"--init-parts={parts.replace(' ', '')}"]
    other = {"mdlm_toy": "--no-encoder-norm --decoder-layers 1", "cmlm_toy": "--no-entry-norm --encoder-layers 1"}[arch]
    flags = f"--activation relu {other}"
    begun = read(start(data, post_norm, tmp_path / "begun", flags, *chosen))["model"]
    plain = [*training(data, tmp_path / "plain", f"{flags} --max-update 1 --lr 0", arch, size=OURS)]
    call("train", *plain, "--no-epoch-checkpoints", "--disable-validation")
    places = {path.split("/")[-1] for path in different(begun, read(tmp_path / "plain/checkpoint_last.pt")["model"])}
    taken = {"encoder": "encoder.", "decoder": "decoder."}
    assert {name.split(".")[1] for name in places} == set(parts.split(", ")) - {"embeddings"}
    assert places and all(any(of in name for of in taken.values()) for name in places)


def test_half_precision(data: Path, post_norm: Path, tmp_path: Path):
    """An AR checkpoint in fp16 for a training in fp32, and the other way round with bf16."""
    state, name = read(post_norm), "encoder.layers.0.fc1.weight"
    weight = state["model"][name]
    torch.save({**state, "model": {key: value.half() for key, value in state["model"].items()}}, tmp_path / "half.pt")
    for ar, flags, expected in (
        (tmp_path / "half.pt", POST_NORM, weight.half()),
        (post_norm, f"{POST_NORM} --bf16", weight.bfloat16()),
    ):
        first = read(start(data, ar, tmp_path / ar.stem, flags))["model"]
        assert torch.equal(first["translator.encoder.layers.0.feed_forward.up.weight"], expected.float())


@pytest.mark.parametrize(
    "flags, words",
    [
        ("", "pass --activation relu --no-encoder-norm --no-entry-norm, or name other parts"),
        (f"{POST_NORM} --encoder-layers 1", "pass --encoder-layers 2, or name"),
        (f"{POST_NORM} --hidden 32", "pass --hidden 16$"),
        (f"{POST_NORM} --pre-norm", "drop --pre-norm, or name other parts than encoder,embeddings,decoder"),
        (f"{POST_NORM} --init-parts denoiser", "'denoiser', which .* choose from: encoder, embeddings, decoder"),
        (f"{POST_NORM} --arch dinoiser_toy --init-parts decoder", "'decoder', .* choose from: encoder, embeddings$"),
    ],
)
def test_another_layout_is_refused(data: Path, post_norm: Path, tmp_path: Path, flags: str, words: str):
    with pytest.raises(UserError, match=words):
        start(data, post_norm, tmp_path, flags)


def test_embeddings_alone_ask_for_their_width_alone(data: Path, post_norm: Path, tmp_path: Path):
    path = start(data, post_norm, tmp_path, "--scale-embeddings --init-parts embeddings --inner 48 --encoder-layers 1")
    theirs = torch.load(post_norm, weights_only=False)["model"]["decoder.embed_tokens.weight"]
    ours = load(path).translator.state.weight.detach()
    assert torch.equal(ours[: len(theirs)], theirs)


@pytest.mark.parametrize("arch", ["sed_toy", "seqdiffuseq_toy"])
def test_vectors_start_as_the_principal_components_of_theirs(data: Path, post_norm: Path, tmp_path: Path, arch: str):
    """No D dimensions keep more of the distances; the table that words are read by starts alike, and neither says which
    sign an axis has."""
    own = "--latent-dim 5 --canvas-positions 12 --inner 48"
    own += "" if arch == "sed_toy" else " --init-parts embeddings"  # the default of vectors that are not trained
    path = start(data, post_norm, tmp_path / "a", own, arch)
    state = load(path).translator.state
    theirs = torch.load(post_norm, weights_only=False)["model"]["decoder.embed_tokens.weight"].double()
    rows = theirs - theirs.mean(0)
    u, s, v = torch.linalg.svd(rows, full_matrices=False)
    best, found = u[:, :5] * s[:5], state.weight.detach()[: len(theirs)].double()
    scale = best.norm() / found.norm()
    torch.testing.assert_close(torch.cdist(found, found) * scale, torch.cdist(best, best), rtol=1e-3, atol=1e-4)
    assert found.std() == pytest.approx(1.0, abs=1e-3)  # --embedding-init-std
    axes = torch.linalg.lstsq(rows, found).solution
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()
    if arch == "sed_toy":
        assert torch.equal(state.reader[: len(theirs)], state.norm.readout(state.weight)[: len(theirs)])
        trained = [*training(data, tmp_path / "b", f"{own} --finetune-from-model {post_norm}", arch, size=OURS)]
        call("train", *trained, "--max-update", "5", "--no-epoch-checkpoints", "--disable-validation")
        after = load(tmp_path / "b" / "checkpoint_last.pt").translator.state
        assert torch.equal(after.weight, state.weight) and not torch.equal(after.reader, state.reader)


def test_vectors_are_not_widened(data: Path, post_norm: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--latent-dim is 24, but the AR model's embeddings have 16 dimensions"):
        start(data, post_norm, tmp_path, "--latent-dim 24 --canvas-positions 12", "sed_toy")


def test_parts_of_a_checkpoint_of_ours_are_refused(data: Path, post_norm: Path, tmp_path: Path):
    first = start(data, post_norm, tmp_path / "first", f"--scale-embeddings {POST_NORM}")
    with pytest.raises(UserError, match="--init-parts is encoder, but .* is no AR model"):
        start(data, first, tmp_path / "second", f"--scale-embeddings {POST_NORM} --init-parts encoder")


def test_other_words_are_refused(data: Path, corpus: Path, post_norm: Path, tmp_path: Path, caplog):
    """By the fingerprint of an AR model of our task, by the data-bin of fairseq's, and by sizes where that is gone."""
    joined = binarise(corpus, tmp_path / "joined", "--joined-dictionary")
    with pytest.raises(UserError, match="source dictionary of 24 entries, but this data has 40"):
        start(joined, post_norm, tmp_path / "a", POST_NORM)
    other = tmp_path / "other"
    shutil.copytree(data, other, ignore=shutil.ignore_patterns(".dictionaries.json"))  # as other data
    rows = (data / "dict.a.txt").read_text().splitlines()
    (other / "dict.a.txt").write_text("\n".join([rows[1], rows[0], *rows[2:]]) + "\n")
    ar = train_ar(other, tmp_path / "ar")
    with pytest.raises(UserError, match="source dictionary .* 24 entries in both, but other words or another order"):
        start(data, ar, tmp_path / "b", POST_NORM)
    with pytest.raises(UserError, match="source dictionary .* 24 entries in both, but other words or another order"):
        start(data, train_ar(other, tmp_path / "our-ar", "", compat.OUR_TASK), tmp_path / "c", POST_NORM)
    shutil.rmtree(other)
    assert start(data, ar, tmp_path / "d", POST_NORM).exists()
    assert "the source dictionaries agree in size" in caplog.text


def test_a_checkpoint_to_go_on_with_is_no_ar_model(data: Path, post_norm: Path, tmp_path: Path):
    with pytest.raises(UserError, match=f"pass --finetune-from-model {post_norm} to start from its weights"):
        call("train", *training(data, tmp_path, f"{POST_NORM} --restore-file {post_norm}", "mdlm_toy", size=OURS))


def test_an_ar_model_goes_on_with_itself(data: Path, post_norm: Path, tmp_path: Path):
    """With our task, too."""
    folder = tmp_path / "more"
    more = train_ar(data, folder, f"--finetune-from-model {post_norm} --max-update 1 --lr 0", compat.OUR_TASK)
    assert different(read(more)["model"], read(post_norm)["model"]) == []
