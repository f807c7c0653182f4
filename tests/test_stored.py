"""Checkpoints from before decode word for word, and cost what they cost; see stored/README.md."""

from __future__ import annotations

import pytest
import stored_models as stored

MODELS = sorted(path.stem for path in stored.checkpoint("any").parent.glob("*.pt"))
WAYS = [(name, row["flags"], row["hypotheses"]) for name in MODELS for row in stored.rows(stored.decodings(name))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flags", "expected"), WAYS, ids=[f"{name} {flags}" for name, flags, _ in WAYS])
def test_a_stored_checkpoint_translates_as_it_did(name: str, flags: str, expected: stored.Hypotheses):
    found = stored.decode(stored.checkpoint(name), flags)
    assert stored.texts(found) == stored.texts(expected)
    for sentence in expected:
        scores = [score for _, score in found[sentence]]
        assert scores == pytest.approx([score for _, score in expected[sentence]], abs=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_checkpoint_has_the_training_losses_that_it_had(name: str):
    """What is watched besides by now was not stored."""
    found = {row["moment"]: row["losses"] for row in stored.training_losses(stored.checkpoint(name))}
    for row in stored.rows(stored.losses(name)):
        stored_then = {key: found[row["moment"]].get(key) for key in row["losses"]}
        assert stored_then == pytest.approx(row["losses"], rel=1e-5, abs=1e-7)


def test_each_model_has_decodings_and_losses():
    assert len(MODELS) >= 15 and {name for name, _, _ in WAYS} == set(MODELS)
    assert all(stored.rows(stored.losses(name)) for name in MODELS)
