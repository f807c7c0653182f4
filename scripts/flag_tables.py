"""Write docs/flags.md, and the tables of presets in docs/systems, from the code; --check says what is out of date."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args

import fairseq_diffusion

ROOT = Path(__file__).resolve().parents[1]
FLAGS, SYSTEMS = ROOT / "docs/flags.md", ROOT / "docs/systems"
SIZES = ("toy", "iwslt_de_en", "wmt_en_de", "wmt16_en_ro")
HEAD = ["flag", "default", "values", "what it does"]
MARKED = re.compile(r"(<!-- presets of (\w+)(?: over (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)

INTRODUCTION = """\
# Flags

Every flag of ours with its default, written from the code by `scripts/flag_tables.py`; a test keeps the two together.
What fairseq itself has (`--lr`, `--max-tokens`, `--path`, ...) is fairseq's and means what it says there.
`fairseq-train --help` stops before it comes to flags of a task or model, so look here.

An architecture (`--arch`) is a set of defaults for the model's flags, listed under [Architectures](#architectures). A
flag on the command line wins over it. The criterion `diffusion_loss` has no flags: the loss is the model's. The
optimizer `fused_adam` has those of fairseq's `adam`: `--adam-betas`, `--adam-eps`, `--weight-decay`.
"""

Table = list[str]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table of Markdown, one line a row."""
    head = list(head)
    return [line(head), line("---" for _ in head), *map(line, rows), ""]


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def code(text: Any) -> str:
    return f"`{text}`"


def spelt(name: str) -> str:
    """As users type it."""
    return "--" + name.replace("_", "-")


def as_flags(name: str, setting: Any) -> str:
    """A field's value as flags; a switch has none."""
    if isinstance(setting, bool):
        return spelt(name) if setting else f"without {spelt(name)}"
    return f"{spelt(name)} {setting}"


def own_fields(config: type) -> list[Field]:
    """Those that `config` itself declares and a user can set; the others are taken from elsewhere."""
    declared = [field for field in fields(config) if field.name in config.__annotations__]
    return [field for field in declared if "${" not in str(field.default)]


def headings(config: type) -> dict[str, str]:
    """Of each field the comment above it, or above its group, in the source of `config`."""
    found, heading = {}, ""
    for text in inspect.getsource(config).splitlines():
        if match := re.match(r"    # (.+)", text):
            heading = match[1]
        elif match := re.match(r"    (\w+): ", text):
            found[match[1]] = heading
    return found


def choices(field: Field) -> str:
    """Names to choose from, or the kind of value."""
    kinds = [kind for kind in get_args(field.type) or (field.type,) if kind is not type(None)]
    members = getattr(kinds[0], "__members__", None)
    names = {bool: "switch", int: "whole number", float: "number", str: "text"}
    return ", ".join(code(member.value) for member in members.values()) if members else names[kinds[0]]


def default(field: Field) -> str:
    return "" if field.default is None or field.default == "" else value(field.default)


def of_config(config: type) -> Iterator[str]:
    """The tables of a configuration, one under each heading."""
    where = headings(config)
    for heading in dict.fromkeys(where[field.name] for field in own_fields(config)):
        here = [field for field in own_fields(config) if where[field.name] == heading]
        if heading:
            yield from (f"### {heading[0].upper()}{heading[1:]}", "")
        yield from table(HEAD, map(row, here))


def row(field: Field) -> list[str]:
    alias = field.metadata.get("argparse_alias")
    text = field.metadata["help"].replace("|", "\\|") + (f" (formerly {code(alias)})" if alias else "")
    return [code(spelt(field.name)), default(field), choices(field), text]


def of_decoding() -> Table:
    """The task's flags that set options of decoding, with the kinds of models that read them."""
    from fairseq_diffusion.tasks.config import DiffusionTranslationConfig

    rows = ([*row(field), ", ".join(readers(field.name))] for field in own_fields(DiffusionTranslationConfig))
    return table([*HEAD, "read by"], rows)


def readers(name: str) -> list[str]:
    """The kinds of models whose decoding reads a flag of the task."""
    from fairseq_diffusion.decoding.options import SelectionOptions
    from fairseq_diffusion.tasks.flags import flags_read
    from fairseq_diffusion.translators import TRANSLATORS

    return [kind.name for kind in TRANSLATORS if ("task", name) in flags_read(kind.Options, SelectionOptions)]


def system_of(name: str) -> str:
    """The preset without its size."""
    return re.sub(rf"_({'|'.join(SIZES)})(?=_|$)", "", name)


def size_of(name: str) -> str:
    match = re.search(rf"_({'|'.join(SIZES)})(?=_|$)", name)
    return match[1] if match else ""


def defaults(model: str) -> dict[str, Any]:
    from fairseq.models import MODEL_DATACLASS_REGISTRY

    return {field.name: field.default for field in fields(MODEL_DATACLASS_REGISTRY[model])}


def changes(name: str) -> str:
    """The flags that would make of a preset's system, or of the defaults, what it is."""
    from fairseq_diffusion.systems.presets import PRESETS

    model, own = PRESETS[name]
    base = {**defaults(model), **(PRESETS[system_of(name)].fields if size_of(name) else {})}
    return " ".join(as_flags(field, own[field]) for field in base if own.get(field, base[field]) != base[field])


def architectures() -> Iterator[str]:
    """The flags of each preset; equal ones in one row."""
    from fairseq_diffusion.systems.presets import PRESETS

    systems = [name for name in PRESETS if not size_of(name)]
    yield from ("## Architectures", "", "`--arch SYSTEM` stands for these flags:", "")
    yield from table(["architecture", "flags"], ([code(name), code(changes(name))] for name in systems))
    yield from ("A size changes, or adds:", "")
    alike: dict[str, list[str]] = {}
    for name in sorted((name for name in PRESETS if size_of(name)), key=size_of):
        alike.setdefault(changes(name), []).append(code(name))
    rows = ([", ".join(names), code(flags) if flags else "nothing"] for flags, names in alike.items())
    yield from table(["architectures", "flags"], rows)


def flags_page() -> str:
    from fairseq_diffusion.criterions.e_arm import EArmConfig
    from fairseq_diffusion.criterions.progressive_distillation import ProgressiveDistillationConfig
    from fairseq_diffusion.models.config import DiffusionConfig, NetworkConfig
    from fairseq_diffusion.models.one_pass_config import OnePassConfig
    from fairseq_diffusion.tasks.config import DataConfig

    parts: Table = [INTRODUCTION, "## Every model", "", *of_config(NetworkConfig)]
    parts += ["## Models of the kind `diffusion`", "", "They denoise step by step.", "", *of_config(DiffusionConfig)]
    parts += ["## Models of the kind `one-pass`", "", ONE_PASS, "", *of_config(OnePassConfig)]
    parts += ["## The task `diffusion_translation`", "", TASK, "", *of_config(DataConfig)]
    parts += ["### Decoding", "", DECODING, "", *of_decoding()]
    parts += ["## The criterion `progressive_distillation`", "", *of_config(ProgressiveDistillationConfig)]
    parts += ["## The criterion `e_arm`", "", E_ARM, "", *of_config(EArmConfig)]
    return "\n".join([*parts, *architectures()])


ONE_PASS = "They predict all words in one pass, or in a few; fairseq's name of the model is `glancing`."
E_ARM = "Beside those of fairseq's `label_smoothed_cross_entropy`, for [an AR model](distillation.md)."
TASK = "Other data flags are those of fairseq's task `translation`, `--eval-bleu` too."
DECODING = (
    "A flag that the kind of model at hand does not read is refused. An empty default is the one of the model's "
    "system, or nothing. Steps, lengths to try, n-best, history and the AR reranker are fairseq's "
    "`--iter-decode-max-iter`, `--iter-decode-with-beam`, `--nbest`, `--retain-iter-history` and "
    "`--iter-decode-with-external-reranker`; a search in a DAG reads fairseq's `--beam` and `--lenpen`."
)


def of_system(system: str, base: str | None = None) -> Table:
    """A system's fields with their values in each size, where that differs; `base`: those alone that differ from it."""
    from fairseq_diffusion.systems.presets import PRESETS

    sized = {size_of(name): PRESETS[name].fields for name in PRESETS if system_of(name) == system}
    plain, usual = sized.pop(""), defaults(PRESETS[system].model)
    beside = {**usual, **(PRESETS[base].fields if base else {})}
    columns = [size for size in SIZES if size in sized]

    def cells(field: str) -> list[str]:
        here = plain.get(field, usual[field])
        differing = (sized[size].get(field, here) for size in columns)
        return [value(here), *("" if other == here else value(other) for other in differing), value(beside[field])]

    names = dict.fromkeys(field for own in (plain, *sized.values()) for field in own)
    shown = [name for name in names if not base or plain.get(name, usual[name]) != beside[name]]
    head = ["flag", code(system), *(f"`_{size}`" for size in columns), code(base) if base else "default"]
    return table(head, ([code(spelt(name)), *cells(name)] for name in shown))


def value(setting: Any) -> str:
    return {True: "on", False: "off"}[setting] if isinstance(setting, bool) else code(setting)


def filled(page: str) -> str:
    """A page of a system, with the table of each marked preset as it is now."""
    return MARKED.sub(lambda found: found[1] + "\n".join(of_system(found[2], found[3])) + "\n" + found[4], page)


def up_to_date() -> dict[Path, str]:
    """The content of each generated document."""
    fairseq_diffusion.load()
    pages = {path: filled(path.read_text(encoding="utf-8")) for path in sorted(SYSTEMS.glob("*.md"))}
    return {FLAGS: flags_page(), **pages}


def update(pages: dict[Path, str], description: str | None, argv: list[str] | None) -> int:
    """Write those of the `pages` that are out of date; with --check, say which, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a document is out of date")
    check = parser.parse_args(argv).check
    stale = [(p, text) for p, text in pages.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    for path, text in stale:
        print(f"{path.name} is out of date; run make format" if check else f"wrote {path.name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


def main(argv: list[str] | None = None) -> int:
    return update(up_to_date(), __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
