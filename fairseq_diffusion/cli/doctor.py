"""Print what this installation stands on and, for each thing that is off, the line that mends it."""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, Iterator

from fairseq_diffusion import __version__, compat


@dataclass(frozen=True)
class Finding:
    """One row: a thing, what was found of it, and how to mend it (empty: nothing is off)."""

    name: str
    found: str
    mend: str = ""
    required: bool = True

    @property
    def mark(self) -> str:
        return "ok" if not self.mend else "OFF" if self.required else "note"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes no options."""


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 if something required is off, else 0."""
    logging.disable(logging.WARNING)  # fairseq talks about optional packages while it is imported
    findings = examine()
    logging.disable(logging.NOTSET)
    print(table(findings))
    return int(any(finding.mark == "OFF" for finding in findings))


def table(findings: list[Finding]) -> str:
    """Rows of name, mark and what was found; the mending line stands below its row."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.name:{width}}  {finding.mark:4}  {finding.found}")
        if finding.mend:
            lines += [f"{'':{width}}        -> {line}" for line in finding.mend.splitlines()]
    return "\n".join(lines)


def examine() -> list[Finding]:
    """Every finding, in the order in which things build on each other."""
    return [
        Finding("fairseq-diffusion", __version__),
        python(),
        torch(),
        *fairseq(),
        *packages(),
        triton(),
        apex(),
        *optimisers(),
        *precisions(),
    ]


def version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def python() -> Finding:
    found = f"{'.'.join(map(str, sys.version_info[:3]))}  {sys.executable}"
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Finding("Python", found, "" if supported else "make the environment with Python 3.10, 3.11 or 3.12")


def torch() -> Finding:
    install = "pip install torch   (or the build for your CUDA, see pytorch.org)"
    try:
        module = importlib.import_module("torch")
    except Exception as error:
        found = "absent" if isinstance(error, ModuleNotFoundError) and error.name == "torch" else f"broken: {error}"
        return Finding("torch", found, install)
    old = compat.version_tuple(module.__version__)[:2] < compat.OLDEST_TORCH
    cuda = f"CUDA {module.version.cuda}" if module.version.cuda else "CPU build"
    device = module.cuda.get_device_name(0) if module.cuda.is_available() else "no GPU visible"
    return Finding("torch", f"{module.__version__}  ({cuda}, {device})", 'pip install "torch>=2.1"' if old else "")


def fairseq() -> Iterator[Finding]:
    """fairseq itself, and whether two distributions of it lie over each other."""
    installed = compat.distributions()
    names = " and ".join(f"{name} {number}" for name, number in installed.items()) or "absent"
    problem = compat.fairseq_problem()
    if problem:
        yield Finding("fairseq", names, f"{problem}; install it with\n{compat.INSTALL_LINES}")
        return
    module = importlib.import_module("fairseq")
    both = "two copies overwrite each other: pip uninstall -y fairseq fairseq-fixed, then install one"
    source = names if installed else f"{module.__version__} from a source tree"
    yield Finding("fairseq", f"{source}  {list(module.__path__)[0]}", both if len(installed) > 1 else "")


def packages() -> Iterator[Finding]:
    """Packages of which the version is all there is to know."""
    for name in ("hydra-core", "omegaconf", "numpy", "sacrebleu", "sacremoses", "subword-nmt"):
        found = version(name)
        mend = (
            "comes with fairseq: install that again" if name in ("hydra-core", "omegaconf") else f"pip install {name}"
        )
        yield Finding(name, found or "absent", "" if found else mend)
    for name, use in (("matplotlib", "fairseq-diffusion plot"), ("tensorboardX", "--tensorboard-logdir")):
        found = version(name)
        yield Finding(name, found or "absent", "" if found else f"pip install {name}   (for {use})", required=False)


def triton() -> Finding:
    """Worth a note only on a GPU whose kernels it should run, and cannot."""
    found, reason = version("triton"), None
    if has_gpu():
        from fairseq_diffusion.kernels import choice  # needs a torch that works

        reason = choice.hindrance(importlib.import_module("torch").device("cuda"))
    mend = f"{reason}: portable kernels run   (pip install --upgrade triton)" if reason else ""
    return Finding("triton", found or "absent (not needed)", mend, required=False)


def has_gpu() -> bool:
    try:
        return importlib.import_module("torch").cuda.is_available()
    except Exception:  # torch absent or broken: its own row says so
        return False


APEX: dict[str, tuple[str, str]] = {
    "absent": ("absent (not needed)", ""),
    "healthy": ("NVIDIA's, with its CUDA extensions   (for fairseq's models; ours have torch's LayerNorm)", ""),
    "foreign": ("an unrelated package of that name", "pip uninstall -y apex   (until then torch's LayerNorm is used)"),
    "broken": (
        "NVIDIA's, without working CUDA extensions",
        "pip uninstall -y apex   (until then torch's LayerNorm and Adam are used)",
    ),
}


def apex(state: Callable[[], str] = compat.apex_state) -> Finding:
    return Finding("apex", *APEX[state()], required=False)


def optimisers() -> Iterator[Finding]:
    """Whose Adam a training here gets, by the name it asks for; nothing where fairseq is off."""
    if has_module("torch") and not compat.fairseq_problem():
        device = "cuda" if has_gpu() else "cpu"
        form = importlib.import_module("fairseq_diffusion.optim.fused_adam").form_on(device)
        yield Finding("fused_adam", f"torch's {form} Adam on {device}   (--optimizer fused_adam)")
        yield Finding("adam", f"{fairseqs_adam()}   (--optimizer adam)")


def fairseqs_adam(state: Callable[[], str] = compat.apex_state) -> str:
    """What fairseq's own name stands for: apex's is for GPUs alone."""
    healthy = has_gpu() and state() == "healthy"
    if healthy and importlib.import_module("fairseq.optim.fused_adam").get_fused_adam_class():
        return "apex's FusedAdam"
    return "fairseq's, parameter by parameter"


def has_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # its own row says so
        return False
    return True


def precisions() -> Iterator[Finding]:
    """What the flags for half precision are worth on this device."""
    if has_gpu():
        major, minor = importlib.import_module("torch").cuda.get_device_capability(0)
        yield Finding("precision", f"compute capability {major}.{minor}: {worth(major)}")
    elif has_module("torch"):
        yield Finding(
            "precision", f"CPU: --bf16 {'with' if has_bf16() else 'WITHOUT'} instructions of its own; fp16 is slow"
        )


def worth(major: int) -> str:
    """Of a GPU with a compute capability that begins with `major`."""
    if major >= 8:
        return "--bf16, or --fp16"
    return "--fp16   (no arithmetic of its own for bf16)" if major == 7 else "fp32   (no fast arithmetic in 16 bits)"


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU says that it multiplies in bf16; without, --bf16 is slower than fp32."""
    return cpuinfo.exists() and bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text()))
