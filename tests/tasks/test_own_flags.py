"""A flag that the model at hand does not read is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import generate

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.tasks.config import DiffusionTranslationConfig  # noqa: E402
from fairseq_diffusion.tasks.flags import FAIRSEQS_STEPS, check_flags, owned  # noqa: E402

GAUSSIAN = [
    ("--sampler ddim", {"sampler": "ddim"}),
    ("--grid sigma", {"grid": "sigma"}),
    ("--early-stop 0.0", {"early_stop": 0.0}),
    ("--decode-noise-factor 1.0", {"decode_noise_factor": 1.0}),
    ("--told-start 0.9", {"told_start": 0.9}),
    ("--told-end 0.9", {"told_end": 0.9}),
    ("--final-time 0.01", {"final_time": 0.01}),
    ("--eta 0.0", {"eta": 0.0}),
    ("--guidance 2.0", {"guidance": 2.0}),
    ("--clamp True", {"clamp": True}),
    ("--prune-after 2", {"prune_after": "2"}),
    ("--stop-stable 2", {"stop_stable": 2}),
    ("--execution compile", {"execution": "compile"}),
]
GLANCING = [
    ("--exit-block 2", {"exit_block": 2}),
    ("--passes 1", {"passes": 1}),
    ("--path-search viterbi", {"path_search": "viterbi"}),
    ("--lookahead-weight 0.5", {"lookahead_weight": 0.5}),
    ("--vertex-tokens 3", {"vertex_tokens": 3}),
    ("--drop-repeats True", {"drop_repeats": True}),
]
BOTH = {"noise_beam": 2, "temperature": 0.5, "length_beam": "offsets", "selection": "mbr", "oracle_length": True}


def check(kind: str, task: dict[str, Any], **generation: Any) -> None:
    cfg = DiffusionTranslationConfig()
    for name, value in task.items():
        assert hasattr(cfg, name)
        setattr(cfg, name, value)
    check_flags(cfg, SimpleNamespace(**generation), kind, f"a model of the kind {kind}")


def test_every_flag_of_one_kind_is_in_a_table():
    found = {(field.metadata["only"], field.name) for field in owned()}
    tables = {"diffusion": GAUSSIAN, "glancing": GLANCING}
    assert found == {(kind, name) for kind, table in tables.items() for _, flags in table for name in flags}


@pytest.mark.parametrize(
    "own, other, words, flags",
    [("diffusion", "glancing", *case) for case in GAUSSIAN] + [("glancing", "diffusion", *case) for case in GLANCING],
)
def test_flags_of_another_kind_are_refused(own: str, other: str, words: str, flags: dict[str, Any]):
    check(own, flags)
    name, value = words.split(" ", 1)
    with pytest.raises(UserError, match=f"{name} is {value}, but this is a model of the kind {other}.*drop it"):
        check(other, flags)


@pytest.mark.parametrize("kind, hint", [("diffusion", "--sampler, --grid"), ("glancing", "--exit-block, --passes")])
def test_the_refusal_lists_what_this_kind_reads(kind: str, hint: str):
    with pytest.raises(UserError, match=hint):
        check(kind, {"clamp": True, "passes": 3})


@pytest.mark.parametrize("kind", ["diffusion", "glancing"])
def test_flags_of_every_kind_pass(kind: str):
    check(kind, {})
    check(kind, BOTH, iter_decode_max_iter=FAIRSEQS_STEPS)


def test_a_configuration_older_than_a_flag_passes():
    check_flags(SimpleNamespace(), None, "glancing", "a model")


def test_steps_are_passes_to_a_glancing_model():
    check("diffusion", {}, iter_decode_max_iter=4)
    with pytest.raises(UserError, match="--iter-decode-max-iter is 4.*--passes"):
        check("glancing", {}, iter_decode_max_iter=4)


@pytest.mark.parametrize("kind", ["diffusion", "glancing"])
@pytest.mark.parametrize("name", ["print_alignment", "replace_unk", "score_reference", "lm_path"])
def test_what_needs_a_left_to_right_decoder_is_refused(kind: str, name: str):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} needs a left-to-right decoder"):
        check(kind, {}, **{name: "asked"})


@pytest.mark.parametrize("flags", ["--drop-repeats", "--path-search viterbi"])
def test_a_checkpoint_knows_its_kind(data: Path, checkpoint: Path, flags: str):
    with pytest.raises(UserError, match=f"{flags.split()[0]} is .*, but this is a Gaussian model"):
        generate(data, checkpoint, flags)
