"""A quiet start: what is left out, what stays, and how all of it comes back."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import stored_models
from commands import ENVIRONMENT
from omegaconf import OmegaConf
from support import USER_DIR

from fairseq_diffusion.compat.quiet import SENTENCE, start_quietly, without_dumps

COMMAND = logging.getLogger("fairseq_cli.train")
# what takes long to import, and what nothing needs that decodes
EXPENSIVE = "sympy mpmath triton torch._dynamo torch._inductor matplotlib pandas sacremoses networkx comet".split()
START = """
import sys, warnings
from fairseq_cli.generate import cli_main
cli_main()
warnings.warn("a warning of the user's")
print("modules:", *sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def started() -> list[str]:
    """The lines on stderr of a fairseq-generate that a user starts; the modules it imported are the last one."""
    flags = f"--path {stored_models.checkpoint('dinoiser')} --cpu --gen-subset test".split()
    command = [sys.executable, "-c", START, str(stored_models.DATA), *USER_DIR, *flags]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stderr.splitlines()


def test_a_command_begins_with_what_it_does(started: list[str]):
    *said, _ = started
    text = "\n".join(said)
    for wanted in ("dictionary: 32 types", "loading model(s)", "loaded 8 examples", "decoding: sampler cedi", SENTENCE):
        assert wanted in text
    assert "'_name'" not in text and "DEBUG:" not in text
    assert re.findall(r"\w*Warning: .*", text) == ["UserWarning: a warning of the user's"]
    assert len(said) < 20


def test_decoding_imports_nothing_expensive(started: list[str]):
    modules = started[-1].split()
    assert "fairseq_diffusion.decoding.generator" in modules and not set(EXPENSIVE) & set(modules)


def test_the_package_alone_imports_neither_torch_nor_fairseq():
    code = "import sys, fairseq_diffusion; sys.exit(bool({'torch', 'fairseq', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=False).returncode == 0


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging and warnings as fairseq has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(COMMAND, "filters", [])
        monkeypatch.delenv("LOGLEVEL", raising=False)
        yield


def printed(caplog: pytest.LogCaptureFixture, what: Any) -> list[Any]:
    caplog.clear()
    with caplog.at_level(logging.INFO, COMMAND.name):
        COMMAND.info(what)
    return [record.msg for record in caplog.records]


def configuration(task: str) -> Any:
    return OmegaConf.create({"task": {"_name": task}})


def test_dumps_of_our_task_alone_are_left_out(loud: None, caplog: pytest.LogCaptureFixture):
    start_quietly()
    start_quietly()
    assert COMMAND.filters == [without_dumps]
    ours, other, model = configuration("diffusion_translation"), configuration("translation"), object()
    assert printed(caplog, ours) == [SENTENCE] and printed(caplog, model) == []
    assert printed(caplog, "num. trained: 1") == ["num. trained: 1"]
    assert printed(caplog, other) == [other] and printed(caplog, model) == [model]


def test_debugging_shows_all(loud: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOGLEVEL", "debug")
    filters = [*warnings.filters]
    start_quietly()
    ours = configuration("diffusion_translation")
    assert printed(caplog, ours) == [ours] and warnings.filters == filters


def test_users_filters_go_before_ours(loud: None):
    start_quietly()
    with pytest.warns(UserWarning, match="no longer experimental"):  # by the fixture's filter
        warnings.warn("hydra.experimental.compose() is no longer experimental. Use hydra.compose()", stacklevel=1)
