"""Odd values of every flag of ours: a model or a decoding that works with it, or a sentence."""

from __future__ import annotations

import random
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import yaml
from damage import damaged, other_values, part_of_the_examples, works_or_says
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks.translation import TranslationConfig
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from stored_models import DATA, checkpoint
from support import TINY_BLOCKS, TINY_WORDS

import fairseq_diffusion
from fairseq_diffusion.compat.renamed import spelt

try:
    from hydra import compose, initialize_config_dir
except ImportError:  # hydra 1.0, below fairseq 0.12.2
    from hydra.experimental import compose, initialize_config_dir

fairseq_diffusion.load()

from fairseq_diffusion.models.config import DiffusionConfig  # noqa: E402
from fairseq_diffusion.models.one_pass_config import OnePassConfig  # noqa: E402
from fairseq_diffusion.systems.presets import PRESETS  # noqa: E402
from fairseq_diffusion.tasks.config import DiffusionTranslationConfig  # noqa: E402

ODD = [
    "0",
    "-1",
    "1",
    "3",
    "-0.5",
    "0.999",
    "1.5",
    "1e-300",
    "1e300",
    "nan",
    "inf",
    "-inf",
    "9" * 12,
    "9" * 30,
    "",
    " ",
]
ODD += ["x", "None", "[1]", ",", "=", "mse=nan", "1,1", "5,3", "\u0663", "a" * 9999, "${x}", "???", "\u2028"]
MODELS = {
    "dinoiser_toy": (DiffusionConfig, [*TINY_WORDS, "--latent-dim", "4"]),
    "mdlm_toy": (DiffusionConfig, TINY_WORDS),
    "diffglat_toy_ctc": (OnePassConfig, TINY_BLOCKS),
    "da_transformer_toy": (OnePassConfig, [*TINY_WORDS]),
}
NO_NUMBER = "a score that is no number"
DECODED = ("dinoiser", "difformer", "cmlm", "da_transformer", "diffglat_ctc")
FAIRSEQS = {each.name for each in fields(TranslationConfig)} - {"max_source_positions", "max_target_positions"}


def names(config: type) -> list[str]:
    return [each.name for each in fields(config) if each.name not in FAIRSEQS]


def cases() -> list[tuple[str, str, str]]:
    trained = [(arch, name, value) for arch in MODELS for name in names(MODELS[arch][0]) for value in ODD]
    decoded = [(model, name, value) for model in DECODED for name in names(DiffusionTranslationConfig) for value in ODD]
    return trained + decoded


def batch(task: Any, model: Any) -> Any:
    task.load_dataset("test")
    dataset = task.dataset("test")
    return dataset.collater(
        [dataset[i] for i in task.filter_indices_by_size(np.arange(2), dataset, model.max_positions())]
    )


def configured(parser: Any, words: list[str]) -> Any:
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, words))


def trained(arch: str, given: list[str]) -> Any:
    """The loss of a batch."""
    words = [str(DATA), "--task", "diffusion_translation", "--criterion", "diffusion_loss", "--arch", arch]
    cfg = configured(options.get_training_parser(), [*words, *MODELS[arch][1], *given])
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    model.set_num_updates(1)
    sample = batch(task, model)
    loss = task.build_criterion(cfg.criterion)(model, sample)[0]
    assert loss.isfinite()
    return loss


@cache
def state(name: str) -> dict[str, Any]:
    return checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint(name)))


def decoded(name: str, given: list[str]) -> Any:
    """Tokens of a batch."""
    words = [str(DATA), "--task", "diffusion_translation", "--path", "x", "--iter-decode-max-iter", "2", *given]
    if name not in ("dinoiser", "difformer"):
        del words[5:7]
    cfg = configured(options.get_generation_parser(), words)
    task = tasks.setup_task(cfg.task)
    models = checkpoint_utils.load_model_ensemble([str(checkpoint(name))], task=task, state=dict(state(name)))[0]
    generator = task.build_generator(models, cfg.generation)
    return [found[0]["tokens"].tolist() for found in task.inference_step(generator, models, batch(task, models[0]))]


def used(capsys: pytest.CaptureFixture[str], model: str, name: str, value: str) -> Any:
    try:
        return (trained if model in MODELS else decoded)(model, [spelt(name), value])
    except SystemExit as refused:  # argparse's, which has named the flag
        assert refused.code == 2 and spelt(name) in capsys.readouterr().err


def test_odd_values(soak: bool, count: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    every = cases()
    for model, name, value in random.Random(None if soak else 1).sample(every, 1000 if soak else 60):
        works_or_says(
            partial(used, capsys, model, name, value), spelt(name), name, NO_NUMBER, "memory", "tokens (source, target)"
        )
        count("odd values of flags")


# -- YAML for hydra

ATTACK = "!!python/object/apply:os.system ['touch {sentinel}']"


def composed(folder: Path) -> Any:
    hydra_init("translate")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(folder)):
        return compose("translate")


def from_yaml(folder: Path) -> Any:
    """A model of the configuration."""
    try:
        cfg = composed(folder)
    except Exception:  # hydra's own, of many kinds
        return None
    add_defaults(cfg)
    return tasks.setup_task(cfg.task).build_model(cfg.model)


@part_of_the_examples(10)
@given(st.data())
def test_yaml(tmp_path: Path, count: Callable[..., None], data: st.DataObject):
    main = {"defaults": [{"model": "own"}], "task": {"_name": "diffusion_translation", "data": str(DATA)}}
    own = {"_name": "diffusion", **PRESETS["difformer_toy"].fields, "encoder_layers": 1, "decoder_layers": 1}
    path, sentinel = tmp_path / "model/own.yaml", tmp_path / "sentinel"
    path.parent.mkdir(exist_ok=True)
    (tmp_path / "translate.yaml").write_text("# @package _group_\n" + yaml.safe_dump(main, sort_keys=False))
    head = b"# @package _group_\n"
    others = other_values(own).map(lambda value: head + yaml.safe_dump(value).encode())
    attack = (yaml.safe_dump(own) + f"x: {ATTACK.format(sentinel=sentinel)}\n").encode()
    path.write_bytes(head + yaml.safe_dump(own).encode())
    assert from_yaml(tmp_path) is not None
    path.write_bytes(data.draw(damaged(head + yaml.safe_dump(own).encode()) | others | st.just(head + attack)))
    works_or_says(lambda: from_yaml(tmp_path), "--", "configuration", "memory", "architecture")
    assert not sentinel.exists()
    count("damaged configurations")
