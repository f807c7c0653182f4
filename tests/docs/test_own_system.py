"""The page on systems of one's own works as it stands: its code, with its commands, does what its equation says."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import ENVIRONMENT, ROOT
from support import TINY, hypotheses, read

PAGE = (ROOT / "docs/your_own_system.md").read_text(encoding="utf-8")
CODE = "\n\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SMALL = f"--arch misread_toy {' '.join(TINY)} --cpu --num-workers 0 --update-freq 1 --lr 1e-3 --warmup-updates 1"
TRAINING = f"{SMALL} --batch-size 8 --disable-validation --schedule-update 1 --log-interval 1"
# fairseq's commands one behind the other in a process of their own, whose first word on plug-ins is --user-dir
RUN = """
import json, sys
from importlib import import_module
for tool, *arguments in json.load(sys.stdin):
    sys.argv = [tool, *arguments]
    import_module(f"fairseq_cli.{tool}").cli_main()
"""


def shown(tool: str, data: Path, more: str) -> list[str]:
    """The page's command, on the tests' data; flags that come later win."""
    (said,) = re.findall(rf"^ *fairseq-{tool} DATA-BIN ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    return [tool, str(data), *shlex.split(said.replace("\\\n", " ")), *more.split()]


@pytest.fixture(scope="module")
def used(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> tuple[Path, str]:
    """The folder in which somebody trained, went on, and decoded; and what was printed."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "misread").mkdir()
    (folder / "misread/__init__.py").write_text(CODE)
    trained = shown("train", data, f"{TRAINING} --max-update 6 --save-interval-updates 3")
    resumed = shown("train", data, f"{TRAINING} --max-update 9 --save-interval-updates 3")
    decoded = shown("generate", data, "--iter-decode-max-iter 3 --cpu --num-workers 0")
    commands = json.dumps([trained, resumed, decoded])
    here = {"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([sys.executable, "-c", RUN], input=commands, **here)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_it_is_short():
    assert 20 < len(CODE.splitlines()) < 80


def table_of(checkpoint: Path) -> torch.Tensor:
    """Rows of norm sqrt(D), as the system diffuses them, in fp64."""
    (weights,) = (value for key, value in read(checkpoint)["model"].items() if key.startswith("translator.state."))
    rows = weights.double()
    return F.normalize(rows, dim=-1) * math.sqrt(rows.shape[-1])


def sigma_of(checkpoint: Path) -> float:
    buffer = read(checkpoint)["model"]["translator.schedule.modifier.sigma_p"]
    assert buffer.dtype == torch.float64
    return buffer.item()


def saved(folder: Path, updates: int) -> Path:
    (path,) = (folder / "checkpoints").glob(f"checkpoint_*_{updates}.pt")
    return path


def misread_share(table: torch.Tensor, sigma: float, draws: int = 200_000) -> float:
    """How often the noisy row of the median word is nearer to its nearest neighbour than to its own."""
    away = torch.cdist(table, table).fill_diagonal_(torch.inf).min(-1)
    word = away.values.argsort()[(len(table) - 1) // 2]
    alpha, generator = math.sqrt(1 - sigma**2), torch.Generator().manual_seed(1)
    noise = torch.randn(draws, table.shape[1], dtype=torch.float64, generator=generator)
    own, other = ((alpha * (table[word] - table[i]) + sigma * noise).norm(dim=-1) for i in (word, away.indices[word]))
    return (other < own).double().mean().item()


def test_the_bound_is_the_one_of_the_equation(used: tuple[Path, str]):
    """Going on from a checkpoint begins with adapting to its embeddings."""
    folder, _ = used
    lines = re.findall(r'^\{"epoch": .*\}$', (folder / "misread.log").read_text(), re.MULTILINE)
    sigma = next(float(log["sigma_p"]) for log in map(json.loads, lines) if log.get("num_updates") == "7")
    table = table_of(saved(folder, 6))
    assert misread_share(table, sigma) == pytest.approx(0.05, abs=0.002)
    assert misread_share(table, 0.9 * sigma) < 0.04


def test_nothing_below_the_bound_is_trained_on(used: tuple[Path, str]):
    folder, _ = used
    log = (folder / "misread.log").read_text()
    lowest = min(float(value) for value in re.findall(r'"sigma_p": "([\d.]+)"', log))
    bands = {int(band) for band in re.findall(r"mse_noise_(\d+)", log)}
    assert 0.2 < lowest < 1
    assert bands and min(bands) >= 10 * math.floor(10 * lowest) and max(bands) == 90


def test_training_went_on_and_its_checkpoint_decodes(used: tuple[Path, str]):
    folder, printed = used
    history = read(folder / "checkpoints/checkpoint_last.pt")["optimizer_history"]
    assert history[-1]["num_updates"] == 9
    assert 0 < sigma_of(saved(folder, 3)) != sigma_of(saved(folder, 9)) > 0
    assert len(hypotheses(printed)) == 11


def test_every_registry_is_on_the_page():
    """A table that leaves one out would send people to change the package."""
    package = ROOT / "fairseq_diffusion"
    sources = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    registries = {name for name, text in sources.items() if re.search(r"^[A-Z_]+: Registry\[", text, re.MULTILINE)}
    named = {name for name in registries if f"fairseq_diffusion/{name})" in PAGE}
    assert "process/curves.py" in named
    assert registries - named == {"systems/presets.py"}  # it holds no parts
