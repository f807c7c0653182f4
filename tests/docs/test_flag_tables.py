"""The generated tables are those of the code, and say what it does."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import MODEL_DATACLASS_REGISTRY

import fairseq_diffusion

sys.path.insert(0, str(ROOT / "scripts"))
import flag_tables  # noqa: E402

fairseq_diffusion.load()
from fairseq_diffusion.systems.presets import PRESETS  # noqa: E402  filled by load()

PAGE = flag_tables.FLAGS.read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\| `.*$", PAGE, re.MULTILINE)]
FLAGS = {row[0].strip("`"): row for row in ROWS if row[0].startswith("`--")}
SETTINGS = {name.strip("`"): row[1].strip("`") for row in ROWS for name in row[0].split(", ") if len(row) == 2}


def test_the_documents_are_up_to_date(capsys: pytest.CaptureFixture[str]):
    assert flag_tables.main(["--check"]) == 0, capsys.readouterr().out


def test_a_document_out_of_date_is_named_and_mended(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "systems/some.md"
    page.parent.mkdir()
    text = "above\n<!-- presets of glat_ctc over glat -->\nold\n<!-- end -->\nbelow\n"
    page.write_text(text)
    monkeypatch.setattr(flag_tables, "FLAGS", tmp_path / "flags.md")
    monkeypatch.setattr(flag_tables, "SYSTEMS", page.parent)
    assert flag_tables.main(["--check"]) == 1
    assert capsys.readouterr().out.count("out of date") == 2 and page.read_text() == text
    assert flag_tables.main([]) == 0 and flag_tables.main(["--check"]) == 0
    above, head, _, *rows, _, _, below = page.read_text().splitlines()[0:1] + page.read_text().splitlines()[2:]
    assert (above, below) == ("above", "below") and "`glat_ctc`" in head and head.endswith("`glat` |")
    assert "| `--alignment` | `ctc` |  |  |  |  | `length` |" in rows and "old" not in rows


def parsed(model: str, flags: str) -> dict[str, Any]:
    """The model's settings, as fairseq reads its flags; `without` a switch, it was never given."""
    for switch in re.findall(r"without (--[\w-]+)", flags):
        flags = re.sub(rf"(without )?{switch}\b", "", flags)
    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, MODEL_DATACLASS_REGISTRY[model]())
    return vars(parser.parse_args(shlex.split(flags)))


@pytest.mark.parametrize("arch", PRESETS)
def test_an_architectures_flags_make_it(arch: str):
    """Typed behind the bare model they give what the architecture gives; a size's stand behind its system's."""
    system, usual = flag_tables.system_of(arch), flag_tables.defaults(PRESETS[arch].model)
    flags = SETTINGS[system] if arch == system else f"{SETTINGS[system]} {SETTINGS[arch].replace('nothing', '')}"
    given = {**usual, **parsed(PRESETS[arch].model, flags)}
    wanted = {**usual, **PRESETS[arch].fields}
    assert {name: str(value) for name, value in given.items()} == {name: str(v) for name, v in wanted.items()}


def test_every_architecture_is_listed():
    named = {name for row in ROWS if len(row) == 2 for name in re.findall(r"`([\w]+)`", row[0])}
    assert named == set(PRESETS)


def test_every_flag_is_listed_with_its_default():
    from fairseq_diffusion.criterions.progressive_distillation import ProgressiveDistillationConfig
    from fairseq_diffusion.models.config import DiffusionConfig
    from fairseq_diffusion.models.one_pass_config import OnePassConfig

    for config in (DiffusionConfig, OnePassConfig, ProgressiveDistillationConfig):
        for field in fields(config):
            if "${" in str(field.default) or field.name == "_name":
                continue
            row = FLAGS["--" + field.name.replace("_", "-")]
            assert field.metadata["help"] in PAGE and len(row) in (4, 5)
    assert FLAGS["--schedule-update"][:2] == ["`--schedule-update`", "`50`"]
    assert FLAGS["--label-smoothing"][1] == "`0.0`" and FLAGS["--pre-norm"][1:3] == ["off", "switch"]
    assert FLAGS["--loss-normaliser"][2] == "`sentences`, `tokens`, `words`"


def test_each_flag_of_decoding_says_who_reads_it():
    from fairseq_diffusion.tasks.config import task_options
    from fairseq_diffusion.tasks.flags import own_flags
    from fairseq_diffusion.translators import TRANSLATORS

    readers = {name: kind.name for kind in TRANSLATORS for section, name in own_flags(kind.name) if section == "task"}
    assert {readers["sampler"], readers["passes"]} == {"diffusion", "one-pass"}
    for name in task_options().keys() - {"decode_seed"}:  # fairseq's --seed
        assert FLAGS["--" + name.replace("_", "-")][-1] == readers.get(name, "diffusion, one-pass")


def test_a_flag_names_its_old_spelling():
    from fairseq_diffusion.compat.renamed import RENAMED_FLAGS

    for old, new in RENAMED_FLAGS.items():
        old, new = (f"--{name.replace('_', '-')}" for name in (old, new))
        assert f"(formerly `{old}`)" in FLAGS[new][3]
