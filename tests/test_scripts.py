"""The scripts that no other test walks through, and the parts of the examples that need no training."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import ENVIRONMENT, ROOT
from support import USER_DIR

import fairseq_diffusion
from fairseq_diffusion.kernels import choice


@pytest.fixture
def toy(monkeypatch):
    """The modules of examples/toy, as their scripts see them."""
    monkeypatch.setenv("USER_DIR", USER_DIR[1])
    monkeypatch.syspath_prepend(str(ROOT / "examples/toy"))
    import chain
    import compare
    import demo
    import one_pass
    import progressive
    import registers
    import systems
    import table

    modules = chain, compare, demo, one_pass, progressive, registers, systems, table
    return SimpleNamespace(**{module.__name__: module for module in modules})


USUAL = {"bleu_unambiguous": None, "valid": 0.5, "mixed": None, "speed": 2.0, "sentences": 4, "ambiguous": 0}


def row(table: Any, system: str, how: str, steps: int | None, calls: float, bleu: float) -> Any:
    return table.Row(system=system, how=how, steps=steps, calls=calls, bleu=bleu, signature="nrefs:1", **USUAL)


SCORE = {"bleu": 9.5, **{key: USUAL[key] for key in USUAL if key != "speed"}, "signature": "nrefs:1"}


def test_a_row_takes_counted_calls_else_tokens(toy):
    table = toy.table
    speed = {"end_to_end": {"sentences_per_second": 2.0, "seconds": 2.0}}
    printed = "H-1\t-0.1\ta b\nP-1\t-0.1 -0.2 -0.3\nH-0\t-1\tc\nP-0\t-1.0 -1.0\n"
    ours = {"decoding": {"steps": 20, "calls": 15.5}, "speed": speed}
    assert table.Row.of("S", "h", ours, printed, SCORE) == row(table, "S", "h", 20, 15.5, 9.5)
    beam = {"decoding": {"decoder": "SequenceGenerator", "beam": 5}, "speed": speed}
    assert table.Row.of("S", "h", beam, printed, SCORE) == row(table, "S", "h", None, 2.5, 9.5)
    assert table.cells(row(table, "S", "h", None, 2.5, 9.5), "steps", "mixed", "valid") == ("-", "-", "50.0%")


def test_the_table_of_solvers_has_a_column_for_each_count_of_steps(toy):
    compare = toy.compare
    table = toy.table
    rows = [row(table, "S", how, steps, steps - 1, 10 * steps) for how in ("ddim", "cedi") for steps in (2, 4)]
    above, head, _, *lines = compare.solver_table(rows).splitlines()
    assert head.split() == ["system", "sampler", *["2", "4"] * 4]
    assert above.split() == ["BLEU", "unambiguous", "valid", "calls"]
    assert lines[1].split() == ["S", "cedi", "20.00", "40.00", "-", "-", "50.0%", "50.0%", "1", "3"]
    assert lines[2] == ""
    assert above.index("valid") == lines[1].index("50.0%")


def test_registers_are_counted(toy):
    """Of four sentences: one in both registers, one twice in the same, one never right, one right once."""
    language = SimpleNamespace(translations=lambda text: [f"{text} formal", f"{text} informal"])
    found = [("a formal", "a informal"), ("b informal", "b informal"), ("c", "a formal"), ("d formal", "d")]
    cells = toy.registers.counted(language, [(text, text) for text in "abcd"], found)
    assert cells == ["25%", "38%", "38%", "50%", "25%"]


def parsed(command: str, parser: Any, *more: str) -> Any:
    """A command's flags as fairseq's `parser` reads them."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    fairseq_diffusion.load()
    here = [os.path.expandvars(word) for word in shlex.split(command)]
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [*here, *more]))


@pytest.mark.slow
def test_every_decoding_of_the_comparison_is_one_that_we_can_do(toy):
    """All flags pass fairseq's parser, and what they ask our checks."""
    from fairseq.options import get_generation_parser

    from fairseq_diffusion.decoding.options import SelectionOptions, read_options
    from fairseq_diffusion.decoding.selection import parse
    from fairseq_diffusion.systems.presets import PRESETS
    from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

    fairseq_diffusion.load()
    model = SimpleNamespace(**PRESETS["difformer_toy"].fields)
    jobs = [job for part in toy.compare.PARTS for job in part.jobs([5, 10, 20])]
    assert len({job.output for job in jobs}) == len(jobs)
    for job in jobs:
        cfg = parsed(job.arguments(Path(".")), get_generation_parser(), *USER_DIR)
        assert read_options(DiffusionOptions, cfg.task, cfg.generation, model).steps == job.steps
        selection = read_options(SelectionOptions, cfg.task, cfg.generation, model)
        assert parse(selection.chain)
        assert selection.rescore == ("rescore" in selection.chain) == (":" in cfg.common_eval.path)


@pytest.mark.slow
def test_every_training_and_decoding_in_one_pass_is_one_that_we_can_do(toy):
    """The same of fairseq's parsers and our checks, with each system built as its training would."""
    from fairseq.options import get_generation_parser, get_training_parser

    from fairseq_diffusion.alignment.base import Symbols
    from fairseq_diffusion.decoding.options import read_options
    from fairseq_diffusion.models.one_pass import build_one_pass
    from fairseq_diffusion.tasks.flags import check_flags

    chain, one_pass, systems = toy.chain, toy.one_pass, toy.systems
    recipe = systems.Recipe.of(systems.ONE_PASS, updates=7, lr=0.5)
    jobs = one_pass.jobs(recipe.systems)
    assert len({job.output for job in jobs}) == len(jobs)
    assert {job.system for job in jobs} == set(systems.ONE_PASS)
    for system in systems.ONE_PASS:
        command = chain.training(system, recipe).command
        trained = parsed(command[command.index(" data-bin ") :], get_training_parser())
        assert list(trained.optimization.lr) == [0.5]
        assert (trained.optimization.max_update == 7) == (system != systems.AR)
        own = [job for job in jobs if job.system == system]
        asked = [parsed(job.arguments(Path(".")), get_generation_parser(), *USER_DIR) for job in own]
        if system == systems.AR:
            continue
        translator = build_one_pass(trained.model, 20, 21, Symbols(0, 1, 2, 20))
        for cfg in asked:
            check_flags(cfg.task, cfg.generation, translator)
            options = read_options(translator.Options, cfg.task, cfg.generation, trained.model)
            assert translator.decoder_for(options).settings()["passes"] == options.passes


@pytest.mark.slow
def test_every_halving_is_one_that_we_can_do(toy):
    """Each student starts as the model whose steps it halves, and is taught the decoding that it is compared by."""
    from fairseq.options import get_generation_parser, get_training_parser

    from fairseq_diffusion.alignment.base import Symbols
    from fairseq_diffusion.decoding.options import read_options
    from fairseq_diffusion.models.diffusion import build_diffusion
    from fairseq_diffusion.samplers.halving import Halving
    from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

    progressive, base = toy.progressive, Path("../a run")
    plan = progressive.Plan(progressive.HALVED, progressive.halvings("4"), 7, teacher_updates=9, lr=0.5, seed=3)
    rounds = progressive.trainings(base, plan)
    assert plan.steps == [4, 2, 1]
    made = {str(progressive.path_of(base, system, "demo", 0)) for system in progressive.HALVED}
    for step in (step for steps in rounds for step in steps):
        cfg = parsed(step.command[step.command.index(" '../a run/data-bin' ") :], get_training_parser())
        assert cfg.checkpoint.finetune_from_model in made and cfg.checkpoint.finetune_from_model in step.inputs
        if "student" in step.name:
            assert cfg.criterion.teacher == cfg.checkpoint.finetune_from_model
            schedule = build_diffusion(cfg.model, 20, 21, Symbols(0, 1, 2, -1)).schedule
            Halving(schedule, cfg.criterion.student_steps, cfg.model.decode_noise_factor)
        assert cfg.optimization.max_update == (9 if "teacher" in step.name else 7)
        made.add(f"{cfg.checkpoint.save_dir}/checkpoint_last.pt")
    for job in progressive.jobs(base, plan):
        asked = parsed(job.arguments(base), get_generation_parser(), *USER_DIR)
        options = read_options(DiffusionOptions, asked.task, asked.generation, cfg.model)
        assert (options.sampler, options.grid, options.left_out) == ("ddim", "time", 0)
        assert asked.common_eval.path in made
        assert job.how != "student" or asked.common_eval.path.endswith(f"of-{job.steps}/checkpoint_last.pt")


def test_the_table_of_students_has_a_column_for_each_model(toy):
    """Where there is no student of so many steps, nothing stands."""
    progressive, table = toy.progressive, toy.table
    plan = progressive.Plan(progressive.HALVED, [2, 1], updates=7, teacher_updates=9, lr=0.5, seed=3)
    bleu = {("demo", 2): 80.0, ("demo", 1): 70.0, ("teacher", 2): 81.0, ("teacher", 1): 71.0, ("student", 1): 79.0}
    rows = [
        row(table, system, how, steps, steps, value) for system in plan.systems for (how, steps), value in bleu.items()
    ]
    above, head, _, *lines = progressive.table(rows, plan).splitlines()
    assert above.split() == ["BLEU", "unambiguous", "valid", "mixed"]
    assert head.split()[:6] == ["system", "steps", "demo", "teacher", "student", "demo"]
    assert lines[0].split()[1:5] == ["2", "80.00", "81.00", "-"]
    assert lines[3].split()[1:5] == ["1", "70.00", "71.00", "79.00"]
    for wrong in ("1", "12", "0"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{wrong} steps cannot be halved"):
            progressive.halvings(wrong)


def test_flags_say_what_the_table_of_systems_does_not(toy):
    """Each sets the systems that name it; the demo's recipe has no other's numbers."""
    systems = toy.systems
    usual, given = (
        systems.Recipe.of(systems.FULL_DEMO),
        systems.Recipe.of(systems.FULL_DEMO, ar_updates=3, lr=0.1, size=9),
    )
    assert list(usual.systems) == ["DINOISER", "DINOISER, no clipping", "Difformer", "Transformer"]
    assert (usual.size, given.size) == (50_000, 9)
    assert given.systems["Transformer"] == {"updates": 3, "lr": 0.1}
    assert given.systems["DINOISER"] == {**usual.systems["DINOISER"], "lr": 0.1}
    assert given.systems["Difformer"] == usual.systems["Difformer"]


def test_the_full_demo_decodes_more_systems_in_more_ways(toy):
    """Five lengths with five noises take too long for the short one."""
    demo, systems = toy.demo, toy.systems
    for full, names, count in ((True, systems.FULL_DEMO, 11), (False, systems.DEMO, 5)):
        jobs = demo.jobs(systems.Recipe.of(names), SimpleNamespace(full=full, steps=7))
        assert {job.system for job in jobs} == set(names) and len(jobs) == count
        assert {job.steps for job in jobs} == {0, 7}
        assert any(demo.FIVE_BY_FIVE in job.flags for job in jobs) == full
    short = systems.Recipe.of(systems.DEMO, demo.SHORT)
    assert short.systems["NAT"]["updates"] < short.systems["DINOISER"]["updates"] < systems.SYSTEMS["DINOISER"].updates


def test_the_table_of_early_exit_compares_with_its_own_system(toy):
    compare = toy.compare
    table = toy.table
    ways = [("A", "all steps", 20, 30.0), ("A", "less", 15, 29.5), ("B", "all steps", 10, 8.0), ("B", "less", 4, 9.0)]
    rows = [row(table, system, how, 20, calls, bleu) for system, how, calls, bleu in ways]
    lines = compare.early_exit_table(rows).splitlines()[2:6]
    assert [line.split()[-5:] for line in lines] == [
        ["20", "0%", "30.00", "+0.00", "2.0"],
        ["15", "25%", "29.50", "-0.50", "2.0"],
        ["10", "0%", "8.00", "+0.00", "2.0"],
        ["4", "60%", "9.00", "+1.00", "2.0"],
    ]


def test_a_comparison_takes_the_run_that_is_named_or_makes_the_demos(toy, tmp_path, monkeypatch):
    chain, systems = toy.chain, toy.systems
    recipe = systems.Recipe.of(systems.FULL_DEMO, seed=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chain, "prepare", lambda recipe: None)
    monkeypatch.setattr(chain, "train", lambda steps: Path("trained").write_text(str(len(steps))))
    with chain.working_in(tmp_path / "named"):
        chain.build(recipe)
    assert chain.demo_run(Path("named")) == (tmp_path / "named", recipe)
    for _ in range(2):
        assert chain.demo_run(None) == (tmp_path / "runs/demo-full", systems.Recipe.of(systems.FULL_DEMO))
    assert Path("runs/demo-full/trained").read_text() == "4" and not Path("trained").exists()


def test_a_run_is_not_complete_while_another_recipe_is_made(toy, tmp_path, monkeypatch):
    """What was there is kept aside."""
    chain, systems = toy.chain, toy.systems
    monkeypatch.setattr(chain, "prepare", lambda recipe: None)
    seen = []
    monkeypatch.setattr(chain, "train", lambda steps: seen.append(Path("recipe.json").exists()))
    for seed in (1, 1, 2):
        with chain.working_in(tmp_path):
            chain.build(systems.Recipe.of(systems.FULL_DEMO, seed=seed))
    assert seen == [False, True, False]
    assert [json.loads(path.read_text())["seed"] for path in sorted(tmp_path.rglob("recipe.json"))] == [2, 1]


def test_two_runs_do_not_work_in_one_folder(toy, tmp_path):
    with toy.chain.working_in(tmp_path):
        beside = f"import chain, pathlib\nwith chain.working_in(pathlib.Path({str(tmp_path)!r})): pass"
        environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'examples/toy'}"}
        done = subprocess.run([sys.executable, "-c", beside], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and f"still works in {tmp_path}" in done.stderr


@pytest.mark.parametrize("name", ["compare", "progressive"])
def test_a_run_that_is_none_is_refused(tmp_path, name):
    command = [sys.executable, ROOT / f"examples/toy/{name}.py", "--run", tmp_path / "nowhere"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{name}: {tmp_path / 'nowhere'} is no complete run of `make demo-full`" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["20,10", "0,4", "1,2", "five"])
def test_steps_rise(toy, text):
    compare = toy.compare
    with pytest.raises((ValueError, compare.argparse.ArgumentTypeError)):
        compare.rising(text)
    assert compare.rising("5,10,20") == [5, 10, 20]


def test_a_failed_training_ends_those_beside_it_and_those_behind_it_do_not_start(toy, tmp_path, monkeypatch):
    import step

    chain = toy.chain
    monkeypatch.setattr(step, "stopped", step.Event())
    monkeypatch.setattr(chain, "TRAININGS", 2)
    commands = {"long": "sleep 60; touch long", "broken": "sleep 1; echo pieces; false", "behind": "touch behind"}
    steps = [chain.step(f"train-{name}", [], name, command) for name, command in commands.items()]
    with chain.working_in(tmp_path), pytest.raises(chain.StepFailed, match="train-broken failed.*\n.*\n.*\n.*pieces"):
        chain.train(steps)
    assert not (tmp_path / "long").exists() and not (tmp_path / "behind").exists()
    assert json.loads((tmp_path / "steps/train-long.json").read_text())["state"] == "begun"


def test_a_table_that_differs_is_kept(toy, tmp_path, capsys):
    chain, rows = toy.chain, [row(toy.table, "S", "h", None, 2.5, 9.5)]
    with chain.working_in(tmp_path):
        for text in ("one", "one", "two"):
            chain.save("table", text, toy.systems.Recipe(), rows)
    assert (tmp_path / "table.txt").read_text() == "two"
    assert [path.read_text() for path in tmp_path.glob("replaced/*/table.txt")] == ["one"]


@pytest.fixture
def gpu_check(monkeypatch, tmp_path):
    """scripts/gpu_check.py's program, with a folder of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import gpu_check

    def run(*flags: str) -> tuple[int, Path]:
        monkeypatch.setattr(sys, "argv", ["gpu_check", *flags, f"--out={tmp_path}", f"--work={tmp_path / 'work'}"])
        return gpu_check.main(), tmp_path / f"{flags[0]}.json"

    return run


def test_kernels_are_tried_without_a_gpu_and_checked_with_one_only(gpu_check, capsys, monkeypatch):
    monkeypatch.setattr(choice, "why_no_triton", lambda device: "there is no GPU")
    code, record = gpu_check("kernels")
    assert code == 1 and not record.exists() and "there are no kernels to check" in capsys.readouterr().err
    code, record = gpu_check("kernels", "--cpu")
    result = json.loads(record.read_text())["result"]
    assert code == 0 and result["as_exact"] and len(result["rows"]) == 2
    for row in result["rows"]:
        assert not row["auto_is_triton"] and row["samples_that_differ"] == 0 and row["same_twice"]
        assert row["log_p_error_portable"] < 1e-5 and row["loss_error_portable"] < 1e-4
