"""No flag without a test."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from fairseq.tasks.translation import TranslationConfig

from fairseq_diffusion.models.config import DiffusionConfig
from fairseq_diffusion.models.glancing_config import GlancingConfig
from fairseq_diffusion.tasks.config import DiffusionTranslationConfig

HERE = Path(__file__).resolve()
TESTS = "\n".join(path.read_text() for path in HERE.parents[1].rglob("test_*.py") if path != HERE)
INHERITED = {field.name for field in fields(TranslationConfig)}
CONFIGS = [*fields(DiffusionConfig), *fields(GlancingConfig), *fields(DiffusionTranslationConfig)]
OURS = {field.name: field for field in CONFIGS if field.name not in INHERITED and not field.name.startswith("_")}
OWN = sorted(name for name, field in OURS.items() if not str(field.default).startswith("${"))  # not from another part


def test_there_are_flags():
    assert len(OWN) > 30


@pytest.mark.parametrize("name", OWN)
def test_flag_is_used_in_a_test(name: str):
    assert re.search(rf"--{name.replace('_', '-')}[ \"]", TESTS)


@pytest.mark.parametrize("name", OWN)
def test_flag_is_explained(name: str):
    assert len(OURS[name].metadata["help"]) > 10
