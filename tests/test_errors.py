import subprocess
import sys

import pytest
from commands import ENVIRONMENT
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_diffusion.errors import UserError, sentence_of


class ProcessRaisedException(Exception):
    """Named as torch names what a spawned rank raised: the text holds that rank's traceback."""


def test_sentences():
    assert sentence_of(UserError, UserError("mend this")) == "mend this"
    raised = ProcessRaisedException("-- Process 0 ...\nTraceback ...\nfairseq_diffusion.errors.UserError: mend that\n")
    assert sentence_of(ProcessRaisedException, raised) == "mend that"
    assert sentence_of(ProcessRaisedException, ProcessRaisedException("ValueError: no")) is None
    assert sentence_of(ValueError, ValueError("fairseq_diffusion.errors.UserError: a quotation")) is None


def test_memory_and_configurations():
    torch_said = RuntimeError("[enforce fail at x.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried\nmore")
    assert sentence_of(RuntimeError, torch_said) == (
        "can't allocate memory: you tried; pass smaller sizes or batches: a flag or a file asks for too much memory"
    )
    assert sentence_of(MemoryError, MemoryError()).startswith("no memory is left; pass smaller sizes")
    cfg = OmegaConf.create({"objective": "???", "own": "${missing}"})
    for name in cfg:
        with pytest.raises(OmegaConfBaseException) as raised:
            cfg[name]
        sentence = sentence_of(raised.type, raised.value)
        assert sentence.startswith("the configuration cannot be read (") and f"full_key: {name}" in sentence


def test_other_exceptions_keep_their_traceback():
    code = "from fairseq_diffusion.errors import *; exit_with_a_sentence(); exit_with_a_sentence(); raise {}('so')"
    said = {}
    for kind in ("UserError", "KeyError"):
        command = [sys.executable, "-c", code.format(kind)]
        said[kind] = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert said["UserError"].stderr == "fairseq-diffusion: error: so\n"
    assert "Traceback" in said["KeyError"].stderr
    assert said["UserError"].returncode == said["KeyError"].returncode == 1
