"""Write an architecture preset as YAML for fairseq-hydra-train, which does not read --arch; or, with --config-dir, all
that it needs to know of this package, because it composes its configuration before it imports common.user_dir."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import fairseq_diffusion.systems  # noqa: F401  registers the presets
from fairseq_diffusion.files.writing import check_writable, write_text, write_texts
from fairseq_diffusion.systems.presets import PRESETS

HEADER = "# @package _group_\n# The {kind} {name} of fairseq_diffusion; put this file into CONFIG-DIR/{kind}/.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arch", metavar="ARCH", help=f"one of: {', '.join(PRESETS)}")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--output", type=Path, help="file to write (default: print)")
    place.add_argument(
        "--config-dir",
        type=Path,
        metavar="DIR",
        help="folder to write to: the model, the task, the criterions and the optimiser of this package, each with all "
        "its fields, for fairseq-hydra-train --config-dir DIR",
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace) -> int:
    model, fields = PRESETS[args.arch]
    if args.config_dir:
        write_folder(args.config_dir, args.arch, args.force)
        return 0
    text = as_yaml("model", args.arch, {"_name": model, **fields})
    if args.output is None:
        print(text, end="")
    else:
        check_writable(args.output, args.force)
        write_text(args.output, text)
    return 0


def as_yaml(kind: str, name: str, fields: dict[str, Any]) -> str:
    return HEADER.format(kind=kind, name=name) + yaml.safe_dump(fields, sort_keys=False)


def write_folder(folder: Path, arch: str, force: bool) -> None:
    files = {folder / kind / f"{name}.yaml": as_yaml(kind, name, fields) for kind, name, fields in parts(arch)}
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        check_writable(file, force)
    write_texts(files)
    print(f"wrote into {folder}:", *(file.relative_to(folder) for file in files), sep="\n  ")


def parts(arch: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Hydra's group, name and fields with their defaults of the model, and of what else this package registers."""
    from fairseq.models import MODEL_DATACLASS_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

    fairseq_diffusion.load()
    model, fields = PRESETS[arch]
    yield "model", arch, {**fields_of(MODEL_DATACLASS_REGISTRY[model]), "_name": model, **fields}
    known = {kind: (part["registry"], part["dataclass_registry"]) for kind, part in REGISTRIES.items()}
    for kind, (classes, configs) in {**known, "task": (TASK_REGISTRY, TASK_DATACLASS_REGISTRY)}.items():
        for name in [name for name in configs if classes[name].__module__.startswith("fairseq_diffusion.")]:
            yield kind, name, {**fields_of(configs[name]), "_name": name}


def fields_of(config: type) -> dict[str, Any]:
    """Names and defaults; those that refer to other parts of the configuration still do."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.structured(config), resolve=False, enum_to_str=True)  # type: ignore
