"""The commands of the page on starting from an AR model: the second's network is laid out like that of the first."""

from __future__ import annotations

import pytest
from commands import ROOT
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from test_documents import commands

import fairseq_diffusion
from fairseq_diffusion.errors import UserError

fairseq_diffusion.load()

from fairseq_diffusion.models.from_ar import PARTS, check_layout  # noqa: E402
from fairseq_diffusion.models.from_fairseq import layout  # noqa: E402

SHOWN = [arguments for _, arguments in commands((ROOT / "docs/start_from_ar.md").read_text())]


def settings(arguments: list[str]):
    here = [str(ROOT / "fairseq_diffusion") if word == "$USER_DIR" else word for word in arguments]
    given = options.parse_args_and_arch(options.get_training_parser(), here)
    return convert_namespace_to_omegaconf(given).model


@pytest.mark.parametrize("dropped", [None, "--scale-embeddings", "--no-encoder-norm", "--no-entry-norm"])
def test_the_layout_is_that_of_the_ar_model(dropped: str | None):
    theirs, ours = SHOWN
    wanted, found = layout(settings(theirs)), settings([word for word in ours if word != dropped])
    assert wanted["activation"] == "relu" and wanted["hidden"] == 512
    if dropped:
        with pytest.raises(
            UserError, match=f"pass {dropped}" + (", or name" if dropped != "--scale-embeddings" else "$")
        ):
            check_layout("ar.pt", wanted, found, list(PARTS))
    else:
        check_layout("ar.pt", wanted, found, list(PARTS))


@pytest.mark.parametrize("part, flag", [("encoder", "--no-entry-norm"), ("decoder", "--no-encoder-norm")])
def test_a_part_needs_its_own_flags(part: str, flag: str):
    theirs, ours = SHOWN
    check_layout("ar.pt", layout(settings(theirs)), settings([word for word in ours if word != flag]), [part])


def test_what_has_no_like_here_is_refused():
    theirs = settings([*SHOWN[0], "--layernorm-embedding"])
    with pytest.raises(UserError, match="--layernorm-embedding, and a LayerNorm on embeddings has no like here"):
        layout(theirs)
    with pytest.raises(UserError, match="encoder has attention_heads 4, its decoder 8"):
        layout(settings([*SHOWN[0], "--decoder-attention-heads", "8"]))
