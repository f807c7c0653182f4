"""The command line of fairseq-generate that decodes the training set, and what users may add to it."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from contextlib import redirect_stderr
from pathlib import Path

from fairseq import options

from fairseq_diffusion.distillation.data import DataBin
from fairseq_diffusion.distillation.teacher import Teacher
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.flags import spelt

DEFAULTS = "--beam 5 --seed 1"  # the user's flags come after them and override them
FIXED = (
    *("gen_subset", "path", "task", "user_dir", "data", "source_lang", "target_lang", "post_process", "quiet"),
    *("results_path", "distributed_world_size", "distributed_rank", "distributed_port"),
)


def generate_command(data: DataBin, teacher: Teacher, flags: list[str]) -> list[str]:
    """The command without the shard.  Our task decodes every sentence; fairseq's may drop a last batch."""
    package = str(Path(__file__).resolve().parents[1])
    own = f"--user-dir {package} --task diffusion_translation --gen-subset train --log-format simple".split()
    what = ["--path", teacher.path, "--source-lang", data.source, "--target-lang", data.target, *teacher.flags()]
    own += ["--skip-invalid-size-inputs-valid-test", *what]
    command = [sys.executable, "-m", "fairseq_cli.generate", str(data.folder), *own]
    check_flags(command[3:], flags)
    return command + flags


def check_flags(own: list[str], flags: list[str]) -> None:
    """The user's flags are ones of fairseq-generate, and change none that distillation sets."""
    plain, given = parsed(own), parsed(own + flags)
    for name in FIXED:
        if getattr(plain, name) != getattr(given, name):
            raise UserError(
                f"the flags after -- set {spelt(name)} to {getattr(given, name)}, but distillation needs "
                f"{getattr(plain, name)}; drop that flag"
            )


def parsed(words: list[str]) -> Namespace:
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            return options.parse_args_and_arch(options.get_generation_parser(), words)
    except SystemExit:
        last = errors.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UserError(f"fairseq-generate does not take the flags after --: {last}") from None
