"""Triton's kernels: their results in its interpreter, and that they fit on a GPU, compiled without one."""

import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fairseq_diffusion.kernels import gradients, launch, scan
from fairseq_diffusion.kernels.choice import OLDEST_TRITON

ROOT = Path(__file__).resolve().parents[2]
OLD = find_spec("triton") is None or tuple(map(int, metadata.version("triton").split(".")[:2])) < OLDEST_TRITON
pytestmark = pytest.mark.skipif(OLD, reason="Triton is not installed, or too old for the kernels")

SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes that a program can have
POINTERS = {"target": "i64", "order": "i64", "keys": "i64", "live": "i32", "words": "i32", "banned": "i8"}
ROUNDING = {**dict.fromkeys(("bias", "banned", "keys", "target", "order", "live")), "BEST": True, "TOTAL": True}
LOSS = {"bias": None, "banned": None, "keys": None, "BEST": True, "TOTAL": True}
SAMPLING = {"target": None, "order": None, "live": None, "BEST": True, "TOTAL": True}
KERNELS = {
    "rounding": (scan.scan, "scan", ROUNDING),
    "loss": (scan.scan, "scan", LOSS),
    "sampling": (scan.scan, "scan", SAMPLING),
    "by_rows": (gradients.by_rows, "by_rows", {}),
    "by_columns": (gradients.by_columns, "by_columns", {}),
}
FIRST = [("rounding", D, "fp32") for D in (16, 64, 128, 256, 512)]
FIRST += [(name, D, "fp32") for name in ("by_rows", "by_columns") for D in (16, 64, 128)]
REST = [("loss", 128, "fp32"), ("loss", 512, "bf16"), ("rounding", 512, "bf16"), ("sampling", 128, "fp32")]
REST += [("by_rows", 256, "bf16"), ("by_columns", 256, "bf16")]
SLOW = [(*case, 90) for case in REST] + [(*case, 80) for case in FIRST + REST]


@pytest.mark.slow
def test_their_results_are_those_of_the_portable_ones():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-W", "ignore"]
    file = Path(__file__).with_name("interpreted.py")
    done = subprocess.run([*command, file], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-5000:] + done.stderr


@pytest.mark.parametrize(
    "name, D, kind, target",
    [*((*case, 90) for case in FIRST), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_they_fit(name, D, kind, target, tmp_path):
    """In registers and shared memory, in the very tiles that the rule picks."""
    compiled = built(name, D, kind, target)
    assert compiled.metadata.shared <= SHARED[target]
    registers, stack, local = resources(compiled.asm["cubin"], tmp_path / "kernel.cubin")
    assert 32 < registers <= 255 and (stack, local) == (0, 0)
    assert ("wgmma" in compiled.asm["ptx"]) == (target == 90)


@pytest.mark.parametrize("kind, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_gradients_are_made_for_the_widths_that_were_tried(kind, dtype):
    widest = max(D for name, D, of in FIRST + REST if name == "by_rows" and of == kind)
    x = torch.zeros(1, widest + 1, dtype=dtype)
    assert launch.has_gradients(x[:, 1:], x[:, 1:]) and not launch.has_gradients(x, x)


def built(name, D, kind, target):
    """A kernel compiled for a GPU of compute capability `target` / 10."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, tiles, constants = KERNELS[name]
    arguments = launch.tiles_of(tiles, D, 4 if kind == "fp32" else 2).arguments()
    options = {key: arguments.pop(key) for key in ("num_warps", "num_stages", "enable_fp_fusion")}
    precision = "tf32x3" if kind == "fp32" else "tf32"
    known = {**constants, **arguments, "D": D, "WIDTH": launch.width_of(D), "PRECISION": precision, "WIDEN": False}
    types = {"x": f"*{kind}", "table": f"*{kind}", "N": "i32", "V": "i32", "span": "i32"}
    types |= {key: f"*{value}" for key, value in POINTERS.items()}
    names = kernel.arg_names
    signature = {key: "constexpr" if key in known else types.get(key, "*fp32") for key in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(names) if signature[key][0] == "*"}
    constexprs = {key: value for key, value in known.items() if key in names}
    source = ASTSource(kernel, signature=signature, constexprs=constexprs, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


def resources(cubin, file):
    """Registers of a thread, and bytes that did not fit in them."""
    import triton

    file.write_bytes(cubin)
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [program, "--dump-resource-usage", file]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(re.search(rf"{what}:(\d+)", printed)[1]) for what in ("REG", "STACK", "LOCAL")]
