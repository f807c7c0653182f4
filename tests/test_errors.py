import subprocess
import sys

from commands import ENVIRONMENT

from fairseq_diffusion.errors import UserError, sentence_of


class ProcessRaisedException(Exception):
    """Named as torch names what a spawned rank raised: the text holds that rank's traceback."""


def test_sentences():
    assert sentence_of(UserError, UserError("mend this")) == "mend this"
    raised = ProcessRaisedException("-- Process 0 ...\nTraceback ...\nfairseq_diffusion.errors.UserError: mend that\n")
    assert sentence_of(ProcessRaisedException, raised) == "mend that"
    assert sentence_of(ProcessRaisedException, ProcessRaisedException("ValueError: no")) is None
    assert sentence_of(ValueError, ValueError("fairseq_diffusion.errors.UserError: a quotation")) is None


def test_other_exceptions_keep_their_traceback():
    code = "from fairseq_diffusion.errors import *; exit_with_a_sentence(); exit_with_a_sentence(); raise {}('so')"
    said = {}
    for kind in ("UserError", "KeyError"):
        command = [sys.executable, "-c", code.format(kind)]
        said[kind] = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert said["UserError"].stderr == "fairseq-diffusion: error: so\n"
    assert "Traceback" in said["KeyError"].stderr
    assert said["UserError"].returncode == said["KeyError"].returncode == 1
