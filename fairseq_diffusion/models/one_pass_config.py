"""Flags of the one-pass models.  A field's help is its documentation."""

from dataclasses import dataclass

from fairseq.dataclass import ChoiceEnum

from fairseq_diffusion.alignment.base import ALIGNMENTS
from fairseq_diffusion.alignment.ctc import REVEALS
from fairseq_diffusion.alignment.glancing import COUNTS, KEEPS, SOURCES
from fairseq_diffusion.alignment.paths import SEARCHES
from fairseq_diffusion.models.config import NetworkConfig, flag
from fairseq_diffusion.network.block_decoder import FUSES
from fairseq_diffusion.network.source_copy import COPIES
from fairseq_diffusion.translators.one_pass import BLOCK_WEIGHTS, FEEDS


@dataclass
class OnePassConfig(NetworkConfig):
    """Defaults are neutral, and make the plain model that predicts all words at once."""

    # decoder
    blocks: int = flag(1, "T, the blocks of layers that the decoder is cut into; each predicts the whole translation")
    fuse: ChoiceEnum(list(FUSES)) = flag(
        "linear", "how a block takes in what is revealed: U [h ; e], or h + g (e - mask)"
    )
    feed: ChoiceEnum(FEEDS) = flag("mask", "fed where nothing is revealed: the mask, or what the block before predicts")
    source_copy: ChoiceEnum(list(COPIES)) = flag("none", "what the empty canvas copies of the source's embeddings")
    # alignment
    alignment: ChoiceEnum(list(ALIGNMENTS)) = flag(
        "length", "how decoder positions map to target tokens: by a predicted length, CTC, or a DAG", "--back-end"
    )
    upsample: float = flag(2.0, "positions of CTC's canvas, or vertices of the DAG, for each token of the source")
    reveal: ChoiceEnum(REVEALS) = flag(
        "positions",
        "what CTC reveals between blocks, in training and in decoding: positions, blank or not, or words alone",
    )
    # glancing
    glance_count: ChoiceEnum(list(COUNTS)) = flag(
        "adaptive",
        "how much is shown in training: a share of what is wrong; as the keep schedule has it; or before the first "
        "block, any share (uniform)",
    )
    glance_source: ChoiceEnum(SOURCES) = flag("wrong", "what adaptive glancing shows: words that are wrong, or any")
    glance_start: float = flag(0.5, "share of the wrong words that is shown, over all blocks, at the first update")
    glance_end: float = flag(0.3, "the same at update --glance-updates, and from then on")
    glance_updates: int = flag(300_000, "updates that the share takes from --glance-start to --glance-end")
    two_pass: bool = flag(
        False, "a first pass without gradient decides what is wrong; else each block does for the next"
    )
    keep_schedule: ChoiceEnum(list(KEEPS)) = flag(
        "linear",
        "share of the translation revealed behind each block in training with --glance-count schedule, and in decoding "
        "unless the task's --keep-schedule names another",
    )
    block_weights: ChoiceEnum(list(BLOCK_WEIGHTS)) = flag("uniform", "weights of the blocks' losses")
    # decoding
    passes: int = flag(1, "passes of the decoder, unless the task's --passes gives another number")
    path_search: ChoiceEnum(SEARCHES) = flag(
        "lookahead",
        "how a DAG's path is found (beam: CTC's words, too), unless the task's --path-search names another search",
    )
