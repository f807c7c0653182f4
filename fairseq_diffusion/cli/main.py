"""Entry point of ``fairseq-diffusion``; a sub-command's module is imported only when it is called."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from types import ModuleType

from fairseq_diffusion import __version__
from fairseq_diffusion.errors import UserError, sentence_of

COMMANDS = {
    "doctor": "check this installation, and print how to fix problems",
    "user-dir": "print the path to pass to --user-dir",
    "toy": "generate the toy language, or score translations of it",
    "distill": "make a distilled data-bin from an autoregressive teacher's translations",
    "spans": "make pairs to pretrain on out of text of one language",
    "average": "average checkpoints (the last k or the best k)",
    "convert": "convert a checkpoint of fairseq's own NAT models",
    "score": "score and compare translations: BLEU, chrF, TER, significance",
    "likelihood": "-log p(y | x) of a data set's translations, or a bound on it",
    "durations": "how many words stand for each source token, by a CTC or DAG model's alignments",
    "export": "write a model for use without torch and fairseq, in fp32 or int8",
    "plot": "draw trainings, BLEU against network calls, or a page of translations over the steps",
    "config": "write an architecture preset as hydra YAML",
}


def command_module(name: str) -> ModuleType:
    return import_module(f"fairseq_diffusion.cli.{name.replace('-', '_')}")


def overview() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: fairseq-diffusion COMMAND [OPTIONS]   (COMMAND --help for its options)", "", *rows])


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    name, rest = argv[0], argv[1:]
    try:
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}; choose one of: {', '.join(COMMANDS)}")
        module = command_module(name)
        parser = argparse.ArgumentParser(prog=f"fairseq-diffusion {name}", description=module.__doc__)
        if hasattr(module, "add_arguments"):
            module.add_arguments(parser)
        parse = getattr(module, "parse", argparse.ArgumentParser.parse_args)  # distill takes others after --
        return module.run(parse(parser, rest))
    except (UserError, OSError) as error:
        if (sentence := sentence_of(type(error), error)) is None:
            raise
        print(f"fairseq-diffusion: error: {sentence}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
