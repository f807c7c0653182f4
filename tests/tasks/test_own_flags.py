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
from fairseq_diffusion.tasks.flags import check_flags, own_flags  # noqa: E402
from fairseq_diffusion.translators import DiffusionTranslator, OnePassTranslator  # noqa: E402

DIFFUSION = [
    ("--sampler ddim", {"sampler": "ddim"}),
    ("--grid sigma", {"grid": "sigma"}),
    ("--early-stop 0.0", {"early_stop": 0.0}),
    ("--decode-noise-factor 1.0", {"decode_noise_factor": 1.0}),
    ("--conditioning-sigma-start 0.9", {"conditioning_sigma_start": 0.9}),
    ("--conditioning-sigma-end 0.9", {"conditioning_sigma_end": 0.9}),
    ("--final-time 0.01", {"final_time": 0.01}),
    ("--eta 0.0", {"eta": 0.0}),
    ("--guidance 2.0", {"guidance": 2.0}),
    ("--word-temperature 0.5", {"word_temperature": 0.5}),
    ("--top-k 5", {"top_k": 5}),
    ("--top-p 0.9", {"top_p": 0.9}),
    ("--clamp True", {"clamp": True}),
    ("--prune-after 2", {"prune_after": "2"}),
    ("--stop-stable 2", {"stop_stable": 2}),
    ("--execution compile", {"execution": "compile"}),
    ("--iter-decode-max-iter 7", {"iter_decode_max_iter": 7}),
]
ONE_PASS = [
    ("--exit-block 2", {"exit_block": 2}),
    ("--keep-schedule none", {"keep_schedule": "none"}),
    ("--passes 1", {"passes": 1}),
    ("--path-search viterbi", {"path_search": "viterbi"}),
    ("--lookahead-weight 0.5", {"lookahead_weight": 0.5}),
    ("--vertex-tokens 3", {"vertex_tokens": 3}),
    ("--blank-penalty 0.5", {"blank_penalty": 0.5}),
    ("--beam 4", {"beam": 4}),
    ("--lenpen 0.6", {"lenpen": 0.6}),
]
BOTH = {"noise_beam": 2, "temperature": 0.5, "length_beam": "offsets", "drop_repeats": True, "selection": "mbr"}
BOTH["oracle_length"] = True
TABLES = {DiffusionTranslator: DIFFUSION, OnePassTranslator: ONE_PASS}


def check(translator: Any, flags: dict[str, Any]) -> None:
    """With `flags` of the task and of fairseq's generation, whichever has them."""
    cfg = DiffusionTranslationConfig()
    generation = {name: value for name, value in flags.items() if not hasattr(cfg, name)}
    for name in flags.keys() - generation.keys():
        setattr(cfg, name, flags[name])
    check_flags(cfg, SimpleNamespace(**generation), translator)


@pytest.mark.parametrize("translator", TABLES, ids=lambda translator: translator.name)
def test_every_flag_of_one_kind_is_in_a_table(translator: Any):
    assert {name for _, name in own_flags(translator)} == {name for _, flags in TABLES[translator] for name in flags}


@pytest.mark.parametrize(
    "own, other, words, flags",
    [(DiffusionTranslator, OnePassTranslator, *case) for case in DIFFUSION]
    + [(OnePassTranslator, DiffusionTranslator, *case) for case in ONE_PASS],
)
def test_flags_of_another_kind_are_refused(own: Any, other: Any, words: str, flags: dict[str, Any]):
    check(own, flags)
    name, value = words.split(" ", 1)
    with pytest.raises(UserError, match=f"{name} is {value}, but {other.name} models do not use it; drop it"):
        check(other, flags)


@pytest.mark.parametrize(
    "translator, hint", [(DiffusionTranslator, "--grid, --guidance"), (OnePassTranslator, "--passes, --path-search")]
)
def test_the_refusal_lists_what_this_kind_reads(translator: Any, hint: str):
    with pytest.raises(UserError, match=hint) as refused:
        check(translator, {"clamp": True, "passes": 3})
    assert "--noise-beam" not in str(refused.value)


def test_the_refusal_of_steps_names_passes():
    with pytest.raises(UserError, match="--iter-decode-max-iter is 4.*pass --passes"):
        check(OnePassTranslator, {"iter_decode_max_iter": 4})


@pytest.mark.parametrize("translator", TABLES)
def test_flags_of_every_kind_pass(translator: Any):
    check(translator, {})
    check(translator, {**BOTH, "iter_decode_max_iter": 10, "beam": 5, "lenpen": 1.0, "nbest": 2})  # fairseq's defaults


@pytest.mark.parametrize("translator", TABLES)
def test_a_configuration_older_than_a_flag_passes(translator: Any):
    check_flags(SimpleNamespace(), None, translator)


@pytest.mark.parametrize("translator", TABLES)
@pytest.mark.parametrize("name", ["print_alignment", "replace_unk", "score_reference", "lm_path"])
def test_what_needs_a_left_to_right_decoder_is_refused(translator: Any, name: str):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} needs a left-to-right decoder"):
        check(translator, {name: "asked"})


@pytest.mark.parametrize("flags", ["--blank-penalty 1", "--path-search viterbi", "--beam 4"])
def test_a_checkpoint_knows_its_kind(data: Path, checkpoint: Path, flags: str):
    with pytest.raises(UserError, match=f"{flags.split()[0]} is .*, but diffusion models do not use it"):
        generate(data, checkpoint, flags)
