"""The model whose translations are distilled: what is read from its checkpoints before decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils, utils

from fairseq_diffusion.distillation.data import DataBin
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.checks import check_dictionary, fingerprint
from fairseq_diffusion.tasks.teacher import EMBEDDINGS, check_sizes

POSITIONS = ("max_source_positions", "max_target_positions")


class Teacher:
    """The checkpoints of `--path`, one or an ensemble."""

    def __init__(self, path: str):
        self.path = path
        self.files = [Path(name) for name in utils.split_paths(path)]
        if missing := [str(file) for file in self.files if not file.is_file()]:
            raise UserError(f"no such checkpoint: {', '.join(missing)}; correct --path")
        states = [checkpoint_utils.load_checkpoint_to_cpu(str(file)) for file in self.files]
        self.languages = (setting(states[0], "source_lang"), setting(states[0], "target_lang"))
        self.positions = {name: setting(states[0], name) for name in POSITIONS}
        weights = [state["model"] for state in states]  # of which only those whose sizes are checked are kept
        self._embeddings = [{key: model[key] for key in EMBEDDINGS.values() if key in model} for model in weights]
        self._saved = [state.get("task_state") or {} for state in states]

    def check(self, data: DataBin) -> None:
        """Each checkpoint was trained with this data's dictionaries, as far as it stores them."""
        dictionaries = dict(zip(("source", "target"), data.dictionaries()))
        for saved, embeddings in zip(self._saved, self._embeddings):
            for side in saved.keys() & dictionaries.keys():
                check_dictionary(side, fingerprint(dictionaries[side]), saved[side])
            if not saved:
                check_sizes({side: len(dictionary) for side, dictionary in dictionaries.items()}, embeddings)

    def flags(self) -> list[str]:
        """The maximal lengths of its training; fairseq-generate's own default is 1024."""
        given = ((name, value) for name, value in self.positions.items() if value)
        return [word for name, value in given for word in (f"--{name.replace('_', '-')}", str(value))]


def setting(state: dict[str, Any], name: str) -> Any:
    """A setting of its training, wherever its fairseq stored it; None if it did not."""
    cfg = state.get("cfg")
    sections = (state.get("args"), getattr(cfg, "model", None), getattr(cfg, "task", None))
    found = (getattr(section, name, None) for section in sections if section is not None)
    return next((value for value in found if value is not None), None)
