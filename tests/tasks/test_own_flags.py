"""A flag that the model at hand does not read is refused."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fairseq_cli.generate
import pytest
from fairseq.dataclass.configs import GenerationConfig
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from support import generate

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.tasks.config import DiffusionTranslationConfig  # noqa: E402
from fairseq_diffusion.tasks.flags import (  # noqa: E402
    AUTOREGRESSIVE,
    FOR_ALL,
    READERS,
    all_flags,
    check_autoregressive_flags,
    check_flags,
    own_flags,
)
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
    in_table = {name for _, flags in TABLES[translator] for name in flags}
    assert {name for _, name in own_flags(translator.name)} == in_table - {"beam", "lenpen"}  # also beam search's


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


BEAM_SEARCH = {
    **{"max_len_a": 1.2, "max_len_b": 10, "min_len": 3, "match_source_len": True, "unnormalized": True, "unkpen": 1.0},
    **{"prefix_size": 2, "no_repeat_ngram_size": 3, "sampling": True, "sampling_topk": 5, "sampling_topp": 0.9},
    **{"diverse_beam_groups": 2, "diverse_beam_strength": 0.9, "diversity_rate": 0.5, "retain_dropout": True},
    **{"retain_dropout_modules": ["TransformerModel"], "no_beamable_mm": True, "constraints": "ordered"},
    **{"print_alignment": "hard", "replace_unk": "@@ ", "score_reference": True, "lm_path": "lm.pt", "lm_weight": 0.3},
}
NOBODYS = {
    **{"beam_mt": 2, "max_len_a_mt": 1.0, "max_len_b_mt": 10, "lenpen_mt": 0.5, "no_early_stop": True},
    **{"decoding_format": "vote", "eos_token": "</s>", "iter_decode_eos_penalty": 1.0},
    **{"iter_decode_force_max_iter": True},
}


def check_beam_search(flags: dict[str, Any]) -> None:
    cfg, generation = DiffusionTranslationConfig(decode_seed=1), GenerationConfig()
    for name, value in flags.items():
        for section in (cfg, generation):
            if hasattr(section, name):
                setattr(section, name, value)
    check_autoregressive_flags(cfg, generation)


@pytest.mark.parametrize("translator", TABLES)
@pytest.mark.parametrize("name", [*BEAM_SEARCH, *NOBODYS])
def test_silent_flags_of_fairseqs_beam_search_are_refused(translator: Any, name: str):
    value = {**BEAM_SEARCH, **NOBODYS}[name]
    who = "autoregressive models read it" if name in BEAM_SEARCH else "no model of this task reads it"
    sentence = f"--{name.replace('_', '-')} is {value}, but {translator.name} models do not use it; drop it ({who}"
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(translator, {name: value})


def test_silent_flags_of_ours_are_refused_with_an_autoregressive_model():
    check_beam_search({**BEAM_SEARCH, "temperature": 0.7, "beam": 3, "lenpen": 0.6, "nbest": 3})
    flags = {name: value for table in TABLES.values() for _, flags in table for name, value in flags.items()}
    flags |= {**BOTH, **NOBODYS, "candidate_positions": 9, "print_step": True, "retain_iter_history": True}
    flags |= {"iter_decode_with_beam": 2, "iter_decode_with_external_reranker": True, "mbr_units": "words"}
    for name in flags.keys() - {"beam", "lenpen", "temperature"}:
        with pytest.raises(
            UserError, match=f"--{name.replace('_', '-')} is .*, but autoregressive models do not use it"
        ):
            check_beam_search({name: flags[name]})


def test_what_beam_search_reads_is_what_fairseq_reads():
    """By fairseq's source: where it builds the search, prepares a model for it, and runs the command."""
    places = (FairseqTask.build_generator, BaseFairseqModel.prepare_for_inference_, fairseq_cli.generate)
    source = "".join(map(inspect.getsource, places))
    named = {field.name for field in dataclasses.fields(GenerationConfig) if re.search(rf"\b{field.name}\b", source)}
    ours = {name for section, name in READERS[AUTOREGRESSIVE] if section == "generation"}
    assert named - ours == {"print_step", "retain_iter_history"}  # entries of a hypothesis that beam search lacks
    assert ours <= named


def test_every_flag_of_decoding_has_a_known_reader():
    tested = {("generation", name) for name in NOBODYS}
    assert all_flags() == set().union(*READERS.values()) | tested | FOR_ALL


@pytest.mark.parametrize("flags", ["--blank-penalty 1", "--path-search viterbi", "--beam 4"])
def test_a_checkpoint_knows_its_kind(data: Path, checkpoint: Path, flags: str):
    with pytest.raises(UserError, match=f"{flags.split()[0]} is .*, but diffusion models do not use it"):
        generate(data, checkpoint, flags)
