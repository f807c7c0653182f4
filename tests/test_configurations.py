"""The tests' quick way to a configuration leads where fairseq's own leads."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from configurations import composed
from fairseq import options
from fairseq.dataclass import utils
from hydra.experimental import compose
from omegaconf import OmegaConf
from support import decoding, training

import fairseq_diffusion

COMMANDS = {
    "training": (options.get_training_parser, training(Path("data"), Path("here"), "--max-update 2 --seed 3")),
    "one pass": (options.get_training_parser, training(Path("data"), Path("it's here"), arch="glat_toy_ctc", size=[])),
    "decoding": (options.get_generation_parser, decoding(Path("data"), "a:b", "--selection joint:5,mbr --beam 4")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_configurations_are_those_that_hydra_composes(command: str):
    fairseq_diffusion.load()
    parser, words = COMMANDS[command]
    args = options.parse_args_and_arch(parser(), list(map(str, words)))
    with patch.object(utils, "compose", compose):
        theirs = utils.convert_namespace_to_omegaconf(args)
    assert utils.compose is composed
    for _ in range(2):  # the second time nothing of the first is left in what was kept
        ours = utils.convert_namespace_to_omegaconf(args)
        assert OmegaConf.to_container(ours) == OmegaConf.to_container(theirs)
        ours.common.seed = 99
