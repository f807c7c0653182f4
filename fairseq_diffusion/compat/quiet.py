"""A quiet start: what fairseq, hydra and torch say at the start of every command about themselves is left out.

Nothing is left out with LOGLEVEL=DEBUG in the environment, fairseq's own variable.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping

from fairseq_diffusion.compat.checkpoints import OUR_TASK, task_name

DEPRECATIONS = (  # of functions that fairseq calls, by what the warnings begin with
    r"hydra\.experimental\.\w+\(\) is no longer experimental",
    r"\s*The version_base parameter is not specified",
    r"In 'config': Usage of deprecated keyword in package header",
    r"\s*'config' is validated against ConfigStore schema with the same name",
    r"\s*The strict flag in the compose API is deprecated",
    r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated",
    r"Support for mismatched key_padding_mask and attn_mask is deprecated",
)
COMMANDS = ("train", "generate", "interactive", "validate")
SENTENCE = "the configuration is not printed; LOGLEVEL=DEBUG prints it, and every checkpoint has that of its training"


def start_quietly() -> None:
    """Any fairseq: its commands print 5 kB of configuration, and warnings that only fairseq's authors can heed."""
    if os.environ.get("LOGLEVEL", "").upper() == "DEBUG":
        return
    for beginning in DEPRECATIONS:  # behind all other filters, so that -W and PYTHONWARNINGS go before
        warnings.filterwarnings("ignore", beginning, append=True)
    for command in COMMANDS:
        logging.getLogger(f"fairseq_cli.{command}").addFilter(without_dumps)
    hydra = logging.getLogger("hydra")
    if hydra.level == logging.NOTSET:  # a module of fairseq 0.12.3 turns on everybody's debugging messages
        hydra.setLevel(logging.INFO)


class WithoutDumps(logging.Filter):
    """Prints a sentence in place of the configuration of a command with our task, and its model's modules not at all;
    other tasks keep both."""

    ours = False  # whether the last configuration was of our task

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, Mapping):
            self.ours = task_name({"cfg": record.msg}) == OUR_TASK
            if self.ours:
                record.msg = SENTENCE
        return isinstance(record.msg, (str, Mapping)) or not self.ours


without_dumps = WithoutDumps()
