import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.registry import Registry


def test_names_lead_to_parts():
    parts = Registry("part")
    parts.register("b")(2)
    parts.register("a")(1)
    assert parts["a"] == 1 and list(parts) == ["a", "b"] and "b" in parts and len(parts) == 2


def test_unknown_names_list_the_choices():
    parts = Registry("part")
    parts.register("one")(1)
    with pytest.raises(UserError, match="unknown part 'two'; choose one of: one"):
        parts["two"]


def test_names_are_given_once():
    parts = Registry("part")
    parts.register("one")(1)
    with pytest.raises(ValueError, match="already registered"):
        parts.register("one")(2)
