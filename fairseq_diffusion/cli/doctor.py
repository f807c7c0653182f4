"""Check this installation: print the versions in use and, for each problem, how to fix it."""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from fairseq_diffusion import __version__, compat
from fairseq_diffusion.compat.installed import version
from fairseq_diffusion.reporting.table import aligned


@dataclass(frozen=True)
class Finding:
    """One row: a component, what was found, and how to fix it (empty: no problem)."""

    name: str
    found: str
    fix: str = ""
    required: bool = True

    @property
    def mark(self) -> str:
        return "ok" if not self.fix else "FIX" if self.required else "note"


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 if something required has a problem, else 0."""
    logging.disable(logging.WARNING)  # fairseq logs missing optional packages when it is imported
    findings = [  # each component before those that need it
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
    logging.disable(logging.NOTSET)
    print(table(findings))
    return int(any(finding.mark == "FIX" for finding in findings))


def table(findings: list[Finding]) -> str:
    """Rows of name, mark and what was found; how to fix it is below its row."""
    rows = []
    for finding in findings:
        rows += [(finding.name, finding.mark, finding.found)]
        rows += [("", "", f"-> {line}") for line in finding.fix.splitlines()]
    return "\n".join(aligned(rows, (True, True, True)))


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
    """fairseq itself, and whether two distributions of it overwrite each other."""
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
    """Packages of which only the version is checked."""
    for name in ("hydra-core", "omegaconf", "numpy", "sacrebleu", "sacremoses", "subword-nmt"):
        found = version(name)
        fix = "comes with fairseq: install that again" if name in ("hydra-core", "omegaconf") else f"pip install {name}"
        yield Finding(name, found or "absent", "" if found else fix)
    for name, use in (("matplotlib", "fairseq-diffusion plot"), ("tensorboardX", "--tensorboard-logdir")):
        found = version(name)
        yield Finding(name, found or "absent", "" if found else f"pip install {name}   (for {use})", required=False)


def triton() -> Finding:
    """A note only on a GPU on which Triton's kernels cannot run."""
    found, reason = version("triton"), None
    if has_gpu():
        from fairseq_diffusion.kernels import choice  # needs a torch that works

        reason = choice.why_no_triton(importlib.import_module("torch").device("cuda"))
    fix = f"{reason}: portable kernels run   (pip install --upgrade triton)" if reason else ""
    return Finding("triton", found or "absent (not needed)", fix, required=False)


def has_gpu() -> bool:
    try:
        return importlib.import_module("torch").cuda.is_available()
    except Exception:  # torch absent or broken, which has a row of its own
        return False


APEX: dict[str, tuple[str, str]] = {
    "absent": ("absent (not needed)", ""),
    "healthy": ("NVIDIA's, with its CUDA extensions   (for fairseq's models; ours use torch's LayerNorm)", ""),
    "foreign": ("an unrelated package of that name", "pip uninstall -y apex   (until then torch's LayerNorm is used)"),
    "broken": (
        "NVIDIA's, without working CUDA extensions",
        "pip uninstall -y apex   (until then torch's LayerNorm and Adam are used)",
    ),
}


def apex() -> Finding:
    return Finding("apex", *APEX[compat.apex_state()], required=False)


def optimisers() -> Iterator[Finding]:
    """The implementation of Adam behind each --optimizer; nothing where fairseq cannot be used."""
    if has_module("torch") and not compat.fairseq_problem():
        device = "cuda" if has_gpu() else "cpu"
        form = importlib.import_module("fairseq_diffusion.optim.fused_adam").adam_implementation(device)
        yield Finding("fused_adam", f"torch's {form} Adam on {device}   (--optimizer fused_adam)")
        yield Finding("adam", f"{fairseqs_adam()}   (--optimizer adam)")


def fairseqs_adam() -> str:
    """The implementation behind fairseq's own adam; apex's is for GPUs only."""
    healthy = has_gpu() and compat.apex_state() == "healthy"
    if healthy and importlib.import_module("fairseq.optim.fused_adam").get_fused_adam_class():
        return "apex's FusedAdam"
    return "fairseq's, parameter by parameter"


def has_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # has a row of its own
        return False
    return True


def precisions() -> Iterator[Finding]:
    """Which flags for half precision are fast on this device."""
    if has_gpu():
        major, minor = importlib.import_module("torch").cuda.get_device_capability(0)
        yield Finding("precision", f"compute capability {major}.{minor}: {fast_precision(major)}")
    elif has_module("torch"):
        yield Finding("precision", f"CPU {'with' if has_bf16() else 'WITHOUT'} native bf16 for --bf16; fp16 is slow")


def fast_precision(major: int) -> str:
    """For a GPU of compute capability `major`."""
    if major >= 8:
        return "--bf16, or --fp16"
    return "--fp16   (no native bf16)" if major == 7 else "fp32   (no fast 16-bit arithmetic)"


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has bf16 instructions; without them, --bf16 is slower than fp32."""
    return cpuinfo.exists() and bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text()))
