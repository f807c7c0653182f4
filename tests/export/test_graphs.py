"""A graph translates as the decoder that it was made of, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blocks
import gaussians
import numpy as np
import pytest
import torch
from token_batches import TOKENS

from fairseq_diffusion.decoding.generator import Generator
from fairseq_diffusion.decoding.options import SelectionOptions
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.export.graph import Decoding, write_graph
from fairseq_diffusion.runtime.model import session_of

ONE_PASS: Any = {"decoder_layers": 2, "blocks": 2}
WORDS_OF: Any = {**TOKENS, "objective": "elbo", "dropout": 0.0}
LATENTS: Any = {"latents": 2, "latents_dim": 4, "latents_layers": 1}
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # a model, how it decodes, and how is chosen
    "ctc": (lambda: blocks.build(alignment="ctc", **ONE_PASS), {"keep_schedule": "linear"}, {}),
    "dag": (lambda: blocks.build(alignment="dag", **ONE_PASS), {"path_search": "lookahead"}, {}),
    "length": (
        lambda: blocks.build(alignment="length", **ONE_PASS),
        {"length_beam": 3, "passes": 2},
        {"selection": "joint"},
    ),
    "words": (lambda: gaussians.build(**WORDS_OF), {"sampler": "confidence", "steps": 3, "length_beam": 2}, {}),
    "vectors": (
        lambda: gaussians.build(dropout=0.0, self_conditioning="both"),
        {"sampler": "cedi", "steps": 3, "length_beam": 2, "noise_beam": 2},
        {},
    ),
    "latents": (
        lambda: gaussians.build(**WORDS_OF, **LATENTS),
        {"sampler": "confidence", "steps": 2, "latents_steps": 2},
        {},
    ),
}


class Words:
    """As much of a dictionary as a generator asks for."""

    def bos(self) -> int:
        return gaussians.BOS

    def pad(self) -> int:
        return gaussians.PAD

    def eos(self) -> int:
        return gaussians.EOS

    def __len__(self) -> int:
        return gaussians.WORDS


def decoding_of(kind: str, **more: Any) -> Decoding:
    make, options, selection = KINDS[kind]
    model = make().eval()
    own = {"path_search": model.path_search} if model.name == "one-pass" else {}
    generator = Generator(
        model, model.Options(**{**own, **options, **more}), SelectionOptions(**selection), dictionary=Words()
    )
    return Decoding(model, generator, gaussians.WORDS, longest=20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_translates_as_its_decoder(kind: str, tmp_path: Path):
    """Batches of other sizes than the example's, too, and an empty source; and whatever stands beside a sentence."""
    decoding = decoding_of(kind)
    write_graph(decoding, tmp_path / "graph.onnx")
    session = session_of(tmp_path / "graph.onnx", 1)
    found: dict[int, Any] = {}
    for counts in ([4, 9, 6], [1], [0, 2], [7] * 5, [9]):
        sources = decoding.example(counts)
        with torch.no_grad():
            wanted = [part.numpy() for part in decoding(sources)]
        tokens, scores, calls = session.run(None, {"sources": sources.numpy()})
        assert np.array_equal(tokens, wanted[0]) and np.array_equal(calls, wanted[2])
        np.testing.assert_allclose(scores, wanted[1], rtol=1e-4, atol=1e-5)
        for source, row in zip(sources.tolist(), tokens.tolist()):
            key = tuple(token for token in source if token != gaussians.PAD)
            words = [token for token in row if token >= 0]
            assert found.setdefault(key, words) == words


@pytest.mark.parametrize(
    "kind, asked, words",
    [
        ("vectors", {"prune_after": "1"}, "--prune-after is 1"),
        ("vectors", {"stop_stable": 2}, "--stop-stable is 2"),
        ("words", {"execution": "graphs"}, "--execution"),
        ("words", {"length_beam": 1, "oracle_length": True}, "--oracle-length is True"),
    ],
)
def test_decodings_that_are_refused(kind: str, asked: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        decoding_of(kind, **asked)


def test_a_selection_by_other_models_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KINDS, "words", (*KINDS["words"][:2], {"selection": "mbr"}))
    with pytest.raises(UserError, match="--selection mbr is not made for export; pass score or joint"):
        decoding_of("words")


@pytest.mark.slow
def test_what_no_graph_can_do_is_said(tmp_path: Path):
    """A beam search goes on as long as there is something to find."""
    with pytest.raises(UserError, match="this decoding cannot be written as a graph"):
        write_graph(decoding_of("ctc", path_search="beam", beam=2), tmp_path / "graph.onnx")
    assert not list(tmp_path.iterdir())
