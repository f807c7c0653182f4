"""Every recipe's page: its commands are ones that the programs take, and each step finds what it needs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT
from dry_runs import RECIPES, SMALL, Planned, flag, plan, recipe
from fairseq import options

import fairseq_diffusion
from fairseq_diffusion.cli.main import COMMANDS, command_module

USER_DIR = str(ROOT / "fairseq_diffusion")
PARSERS = {"fairseq-train": options.get_training_parser, "fairseq-generate": options.get_generation_parser}


def parsed(program: str, arguments: list[str]):
    """As the program itself would read its arguments."""
    here = [USER_DIR if word == "$USER_DIR" else word for word in arguments]
    if program == "fairseq-preprocess":
        return options.get_preprocessing_parser().parse_args(here)
    if program == "fairseq-diffusion":
        assert here[0] in COMMANDS
        module, parser = command_module(here[0]), argparse.ArgumentParser()
        module.add_arguments(parser)
        return getattr(module, "parse", argparse.ArgumentParser.parse_args)(parser, here[1:])
    return options.parse_args_and_arch(PARSERS[program](), here)


def programs(steps: Iterable[Planned], name: str) -> list[list[str]]:
    return [arguments for step in steps for program, arguments in step.programs if program == name]


def test_every_command_is_one_that_its_program_takes():
    """One of each kind: those that differ in numbers or in the data set alone are not parsed twice."""
    kinds = {}
    for name in RECIPES:
        for program, arguments in (each for step in plan(name) for each in step.programs):
            alike = re.sub(r"\d", "", " ".join(arguments).replace("distilled", "raw"))
            kinds[program, alike] = (name, arguments)
    fairseq_diffusion.load()
    for (program, _), (name, arguments) in kinds.items():
        try:
            parsed(program, arguments)
        except SystemExit:
            pytest.fail(f"{program} does not take what {name} says: {' '.join(arguments)}")
    assert {program for program, _ in kinds} == {*PARSERS, "fairseq-preprocess", "fairseq-diffusion"}
    assert len(kinds) > 20


@pytest.mark.parametrize("name", RECIPES)
def test_every_system_is_trained_on_either_set(name: str):
    trained = {flag(arguments, "--save-dir") for arguments in programs(plan(name), "fairseq-train")}
    systems = {"ar", "dinoiser", "difformer", "diffglat"}
    if name in SMALL:
        systems |= {"diffglat_ctc", "diffglat_dag", "nat", "glat", "glat_ctc", "cmlm", "da_transformer"}
        systems |= {"mdlm", "mdlm_from_ar", "rdm_absorb", "rdm_uniform", "sundae", "ddcap"}
        systems |= {"cdcd", "seqdiffuseq", "diffuseq_v2", "sed_from_ar", "genie", "plaid"}
        systems |= {"lddm_seq", "lddm_fuji", "latent_nat_ctc"}
        systems |= {f"difformer_{part}" for part in ("gap", "logit_normal", "word_times", "v")}
        systems |= {"dinoiser_unclipped", "dinoiser_plain", "difformer_unscaled", "difformer_rounding"}
    assert trained == {f"checkpoints/{system}-{on}" for system in systems for on in ("raw", "distilled")}


@pytest.mark.parametrize("name", RECIPES)
def test_each_step_finds_what_it_needs_and_writes_what_no_other_writes(name: str):
    made: list[str] = []
    steps = plan(name)
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        for path in step.inputs:
            known = path.startswith("$DATA/") or any(path == m or m.startswith(f"{path}/") for m in made)
            assert known or any(path.startswith(f"{m}/") for m in made), (step.name, path)
        assert not [path for path in step.outputs if path in made]
        made += step.outputs
        assert "/not/there" not in step.command and "/the user" not in step.command
    assert made[-2:] == ["pareto.png", "records"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_text_is_split_once_and_all_data_share_its_dictionaries(name: str):
    steps = {step.name: step for step in plan(name)}
    assert sum("learn-bpe -s" in step.command for step in steps.values()) == 1
    assert [step for step in steps if "fairseq-preprocess" in steps[step].command] == ["binarise"]
    model = steps["average-difformer-distilled"]
    assert {"text/preprocessing.json", *(f"data/raw/dict.{side}.txt" for side in languages(steps))} < set(model.inputs)
    assert all(path in model.command for path in model.inputs[1:])


def languages(steps: dict[str, Planned]) -> list[str]:
    (arguments,) = programs(list(steps.values()), "fairseq-preprocess")
    return [flag(arguments, "-s"), flag(arguments, "-t")]


def batch(arguments: list[str], unit: str = "--max-tokens") -> tuple[int, int]:
    return int(flag(arguments, unit)), int(flag(arguments, "--update-freq"))


@pytest.mark.parametrize(
    ("gpus", "dinoiser", "difformer"),
    [(1, (8192, 4), (8000, 1)), (2, (8192, 2), (4000, 1)), (4, (8192, 1), (2000, 1)), (8, (4096, 1), (1000, 1))],
)
def test_the_batch_stays_the_same_on_any_number_of_gpus(gpus: int, dinoiser: tuple, difformer: tuple):
    steps = {step.name: step for step in plan("iwslt14_de_en", "--gpus", gpus)}
    for name, wanted in (("dinoiser", dinoiser), ("difformer", difformer)):
        ((_, arguments),) = steps[f"train-{name}-raw"].programs
        assert batch(arguments) == wanted
        assert flag(arguments, "--distributed-world-size") == str(gpus)
        assert steps[f"train-{name}-raw"].command.startswith("torchrun " if gpus > 1 else "fairseq-train ")
    assert flag(programs(list(steps.values()), "fairseq-generate")[0], "--distributed-world-size") == "1"


def test_a_batch_that_does_not_come_out_is_refused():
    done = recipe("wmt14_en_de", "--data", ".", "--out", "/not/there", "--dry-run", "--gpus", 3)
    assert done.returncode == 2
    assert "ar-raw wants batches of 65536, and 3 updates of --max-tokens 8192 on 3 GPUs make 73728" in done.stderr


def test_precision_and_processor():
    for flags, there, absent in (
        (("--gpus", 0), ["--cpu"], ["--fp16", "--bf16"]),
        (("--precision", "bf16"), ["--bf16"], ["--cpu"]),
        (("--precision", "fp16"), ["--fp16"], ["--bf16"]),
    ):
        steps = plan("multi30k", *flags)
        (distilling,) = (words for words in programs(steps, "fairseq-diffusion") if words[0] == "distill")
        trainings = [*programs(steps, "fairseq-train"), distilling]
        for arguments in trainings:
            assert set(there) <= set(arguments) and not set(absent) & set(arguments)
        assert all(("--cpu" in words) == ("--cpu" in there) for words in programs(steps, "fairseq-generate"))


def test_the_toy_is_as_large_and_long_as_asked():
    steps = {step.name: step for step in plan("toy", "--size", 70, "--seed", 7, "--updates", 24, "--ar-updates", 16)}
    assert "--size 70 --test-size 200 --seed 7" in steps["corpus"].command
    for name, updates in (("ar", "16"), ("difformer", "24")):
        ((_, arguments),) = steps[f"train-{name}-raw"].programs
        assert (flag(arguments, "--max-update"), flag(arguments, "--seed")) == (updates, "7")


def test_a_direction_is_chosen():
    assert languages({step.name: step for step in plan("multi30k")}) == ["de", "en"]
    for name in ("multi30k", "tatoeba", *SMALL):
        assert languages({step.name: step for step in plan(name, "--direction", "en-de")}) == ["en", "de"]
    done = recipe("multi30k", "--data", ".", "--out", "/not/there", "--dry-run", "--direction", "en-fr")
    assert done.returncode == 2 and "--direction en-fr is none of: de-en en-de" in done.stderr


def test_another_subset_is_decoded_and_scored_beside_the_test_set():
    test, valid = (
        {step.name: step for step in plan("multi30k", "--sets", "raw", "--systems", "ar", "--subset", subset)}
        for subset in ("test", "valid")
    )
    decode, table = valid["decode-valid-transformer-raw-beam-5"], valid["valid-table"]
    assert "--gen-subset valid " in decode.command and decode.outputs == ["results/valid-transformer-raw-beam-5"]
    assert "--ref text/valid.plain.en" in table.command and "text/valid.plain.en" in table.inputs
    assert table.outputs == ["valid-table.txt", "valid-table.json", "valid-table.md"]
    assert valid["valid-records"].outputs == ["valid-records"]
    other = ("decode-", "table", "picture", "records")
    assert [name for name in test if not name.startswith(other)] == [
        name for name in valid if not name.removeprefix("valid-").startswith(other)
    ]
    outputs = [{output for step in steps.values() for output in step.outputs} for steps in (test, valid)]
    assert not {"table.txt", "pareto.png", "records", "results/transformer-raw-beam-5"} & outputs[1]


def test_a_training_stops_with_the_time_of_the_call():
    """And is complete only if a second program says so; what it does is the same."""
    train = {step.name: step for step in plan("multi30k/small")}["train-glat-raw"]
    assert "--stop-time-hours" not in train.command and "training_time" not in train.command
    command, then = (
        {step.name: step for step in plan("multi30k/small", "--minutes", 9)}["train-glat-raw"]
        .command.strip()
        .rsplit("\n", 1)
    )
    program = 'python3 "$SCRIPTS/training_time.py" checkpoints/glat-raw'
    assert command == f'{train.command.strip()} --stop-time-hours "$({program})"'
    assert then == f"{program} --max-update 12000"
    steps = {step.name: step for step in plan("toy", "--minutes", 9, "--updates", 24)}
    assert "checkpoints/dinoiser-raw --max-update 24" in steps["train-dinoiser-raw"].command
    done = recipe("toy", "--out", "/not/there", "--dry-run", "--minutes", 0)
    assert done.returncode == 2 and "--minutes 0 is no number above 0" in done.stderr


def test_each_of_the_small_systems_has_the_same_time():
    """Updates are counted, so that a training ends alike on each machine: so many a minute."""
    steps = {step.name: step.command for step in plan("multi30k/small", "--training-minutes", 10)}
    for system, seconds in {"ar": 0.45, "dinoiser": 0.6, "diffglat_ctc": 1.25}.items():
        command = steps[f"train-{system}-raw"]
        updates = int(600 / seconds + 1e-6)
        assert f"--max-update {updates} " in command
        assert f"--save-interval-updates {-(-updates // 40)} " in command
        assert ("--glance-updates" in command) == (system == "diffglat_ctc")
    assert "--glance-updates 480 " in steps["train-diffglat_ctc-raw"]


def test_a_number_with_a_zero_before_it_and_a_cdpath(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENVIRONMENT, "CDPATH", f".:{ROOT}")
    steps = {step.name: step for step in plan("toy", "--updates", "008")}
    assert "--max-update 8 " in steps["train-difformer-raw"].command


def test_what_is_chosen_is_made_and_no_more():
    steps = [step.name for step in plan("iwslt14_de_en", "--systems", "difformer", "--sets", "raw")]
    assert [name for name in steps if name.startswith("train")] == ["train-difformer-raw"]
    assert not [name for name in steps if "rescored" in name or "distil" in name]
    steps = [step.name for step in plan("iwslt14_de_en", "--systems", "difformer", "--sets", "distilled")]
    trainings = [name for name in steps if name.startswith(("train", "distil"))]
    assert trainings == ["train-ar-raw", "distil", "train-difformer-distilled"]
    assert "decode-difformer-distilled-7-x-3-rescored-20-steps" in steps


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--out x --systems dinoser", "--systems dinoser is none of: ar dinoiser difformer diffglat"),
        ("--out x --sets mixed", "--sets mixed is none of: raw distilled"),
        ("--out x --gpus two", "--gpus two is no number"),
        ("--out x --dry-run --gpus 65", "--gpus 65 is more than a batch of 64 can be shared by"),
        ("--out x -- 1", "-- is no flag of this recipe"),
        ("--out x --precision fp16", "--precision fp16 needs a GPU"),
        ("--out x --precision fp8 --gpus 1", "--precision fp8 is none of: fp32 fp16 bf16"),
        ("--out x --size many", "--size many is no number"),
        ("--out x --colour 3", "--colour is no flag of this recipe"),
        ("--out", "--out is no flag of this recipe, or lacks its value"),
        ("--size 3", "--out is missing: the folder that everything is written to"),
        ("--out x --redo train", "--redo train: there is no such step"),
    ],
)
def test_what_cannot_be_is_refused(arguments: str, sentence: str):
    done = recipe("toy", *arguments.split())
    assert done.returncode == 2 and sentence in done.stderr
    assert not Path("x").exists()


def test_help_says_what_the_recipe_is_and_takes():
    said = recipe("toy", "--help").stdout
    for part in ("The toy language", "--redo STEP", "of: ar dinoiser difformer diffglat", "--ar-updates N", "1000"):
        assert part in said
    assert "--data" not in said and "--data DIR" in recipe("multi30k", "--help").stdout
