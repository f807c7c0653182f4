"""The scripts that no other test walks through, and the parts of the examples that need no training."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ENVIRONMENT, ROOT, USER_DIR


def test_the_benchmark_runs_and_states_what_it_ran_on(tmp_path):
    small = "--repeats 1 --vocabulary 300 --sentences 2 --candidates 2".split()
    command = [sys.executable, ROOT / "scripts/bench.py", *small, "--output", tmp_path / "bench.json"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    assert {"python", "torch", "device"} <= set(record)
    assert len(record["rows"]) == len(done.stdout.splitlines()) - 2 == 8
    assert all(row["ms"] > 0 and row["baseline_ms"] > 0 for row in record["rows"])


@pytest.fixture
def toy(monkeypatch):
    """The modules of examples/toy, as their scripts see them."""
    monkeypatch.syspath_prepend(str(ROOT / "examples/toy"))
    import chain
    import compare
    import table

    return chain, compare, table


USUAL = {"bleu_unambiguous": None, "valid": 0.5, "mixed": None, "speed": 2.0, "sentences": 4, "ambiguous": 0}


def row(table: Any, system: str, how: str, steps: int | None, calls: float, bleu: float) -> Any:
    return table.Row(system=system, how=how, steps=steps, calls=calls, bleu=bleu, signature="nrefs:1", **USUAL)


SCORE = {"bleu": 9.5, **{key: USUAL[key] for key in USUAL if key != "speed"}, "signature": "nrefs:1"}


def test_a_row_takes_counted_calls_else_tokens(toy):
    _, _, table = toy
    speed = {"end_to_end": {"sentences_per_second": 2.0, "seconds": 2.0}}
    printed = "H-1\t-0.1\ta b\nP-1\t-0.1 -0.2 -0.3\nH-0\t-1\tc\nP-0\t-1.0 -1.0\n"
    ours = {"decoding": {"steps": 20, "calls": 15.5}, "speed": speed}
    assert table.Row.of("S", "h", ours, printed, SCORE) == row(table, "S", "h", 20, 15.5, 9.5)
    beam = {"decoding": {"beam": 5}, "speed": speed}
    assert table.Row.of("S", "h", beam, printed, SCORE) == row(table, "S", "h", None, 2.5, 9.5)
    assert table.cells(row(table, "S", "h", None, 2.5, 9.5), "steps", "mixed", "valid") == ("-", "-", "50.0%")


def test_the_table_of_solvers_has_a_column_for_each_count_of_steps(toy):
    _, compare, table = toy
    rows = [row(table, "S", how, steps, steps - 1, 10 * steps) for how in ("ddim", "cedi") for steps in (2, 4)]
    above, head, _, *lines = compare.solver_table(rows).splitlines()
    assert head.split() == ["system", "sampler", *["2", "4"] * 4]
    assert above.split() == ["BLEU", "unambiguous", "valid", "calls"]
    assert lines[1].split() == ["S", "cedi", "20.00", "40.00", "-", "-", "50.0%", "50.0%", "1", "3"]
    assert lines[2] == ""
    assert above.index("valid") == lines[1].index("50.0%")


def test_every_decoding_of_the_comparison_is_one_that_we_can_do(toy):
    """All flags pass fairseq's parser, and what they ask our checks."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import fairseq_diffusion
    from fairseq_diffusion.decoding.options import DecodeOptions
    from fairseq_diffusion.decoding.selection import parse
    from fairseq_diffusion.presets import PRESETS

    fairseq_diffusion.load()
    _, compare, _ = toy
    model = SimpleNamespace(**PRESETS["difformer_toy"])
    jobs = [job for part in compare.PARTS for job in part.jobs([5, 10, 20])]
    assert len({job.output for job in jobs}) == len(jobs) == 21 + 12 + 16
    for job in jobs:
        flags = shlex.split(job.arguments(Path("."))) + USER_DIR
        cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_generation_parser(), flags))
        asked = DecodeOptions.from_flags(cfg.task, cfg.generation, model)
        assert asked.steps == job.steps and parse(asked.selection)
        assert asked.rescore == ("rescore" in asked.selection) == (":" in cfg.common_eval.path)


def test_the_table_of_those_who_leave_compares_with_its_own_system(toy):
    _, compare, table = toy
    ways = [("A", "all stay", 20, 30.0), ("A", "less", 15, 29.5), ("B", "all stay", 10, 8.0), ("B", "less", 4, 9.0)]
    rows = [row(table, system, how, 20, calls, bleu) for system, how, calls, bleu in ways]
    lines = compare.leaving_table(rows).splitlines()[2:6]
    assert [line.split()[-5:] for line in lines] == [
        ["20", "0%", "30.00", "+0.00", "2.0"],
        ["15", "25%", "29.50", "-0.50", "2.0"],
        ["10", "0%", "8.00", "+0.00", "2.0"],
        ["4", "60%", "9.00", "+1.00", "2.0"],
    ]


def make_run(chain: Any, folder: Path, age: int) -> Path:
    """What a complete run leaves, empty."""
    for system in chain.SYSTEMS:
        (folder / chain.checkpoint(system)).parent.mkdir(parents=True)
        (folder / chain.checkpoint(system)).touch()
    (folder / "recipe.json").write_text(json.dumps({"seed": age}))
    os.utime(folder / "recipe.json", (10**9 - age, 10**9 - age))
    return folder


def test_a_comparison_finds_its_run(toy, tmp_path, monkeypatch):
    chain, compare, _ = toy
    monkeypatch.setattr(compare, "build", lambda runs, recipe: runs / "made")
    assert compare.find(None, tmp_path) == tmp_path / "made"
    newer, older = (make_run(chain, tmp_path / f"demo-{age}", age) for age in (1, 2))
    (tmp_path / "demo-3").mkdir()  # still training
    assert compare.find(None, tmp_path) == newer
    assert compare.find(older, tmp_path) == older
    assert chain.recipe_of(older) == chain.Recipe(seed=2)


def test_a_comparison_refuses_a_run_that_is_not_complete(toy, tmp_path):
    chain, _, _ = toy
    command = [sys.executable, ROOT / "examples/toy/compare.py", "--run"]
    run = make_run(chain, tmp_path / "demo-1", 1)
    missing = chain.checkpoint(chain.DIFFORMER)
    (run / missing).unlink()
    for folder, part in ((tmp_path / "nowhere", "recipe.json"), (run, missing)):
        done = subprocess.run([*command, folder], env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr == (
            f"compare: {folder} is no complete run of the demo, for it has no {part}; "
            "name another with --run, or make one with `make demo`\n"
        )
    assert not list(tmp_path.glob("compare-*"))


@pytest.mark.parametrize("text", ["20,10", "0,4", "1,2", "five"])
def test_steps_rise(toy, text):
    _, compare, _ = toy
    with pytest.raises((ValueError, compare.argparse.ArgumentTypeError)):
        compare.rising(text)
    assert compare.rising("5,10,20") == [5, 10, 20]


def test_a_failed_training_speaks_and_those_behind_it_do_not_start(toy, tmp_path, monkeypatch):
    chain, _, _ = toy
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(chain, "TRAININGS", 2)
    monkeypatch.setattr(chain, "report_progress", lambda stages, futures: None)
    python = chain.shlex.quote(sys.executable)
    stages = [
        chain.Stage("train long", f"{python} -c 'import time; time.sleep(60)'", tmp_path, 1),
        chain.Stage("train broken", f"{python} -c 'import time; time.sleep(1); 1 / 0'", tmp_path, 1),
        chain.Stage("train behind", f'{python} -c \'open("begun", "w")\'', tmp_path, 1),
    ]
    with pytest.raises(chain.StageFailed, match="'train broken' failed"):
        chain.train(stages)
    assert not (tmp_path / "begun").exists()
