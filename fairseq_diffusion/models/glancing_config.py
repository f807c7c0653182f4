"""Flags of the models that write a translation in one pass.  A field's help is its documentation."""

from dataclasses import dataclass

from fairseq.dataclass import ChoiceEnum

from fairseq_diffusion.alignment.base import BACK_ENDS
from fairseq_diffusion.alignment.dag import SEARCHES
from fairseq_diffusion.alignment.glancing import COUNTS, KEEPS, SOURCES
from fairseq_diffusion.models.config import NetworkConfig, flag
from fairseq_diffusion.network.block_decoder import FUSES
from fairseq_diffusion.network.source_copy import COPIES
from fairseq_diffusion.translators.one_pass import BLOCK_WEIGHTS, FEEDS


@dataclass
class GlancingConfig(NetworkConfig):
    """Defaults are neutral, and make the plain model that says all words at once."""

    # decoder
    blocks: int = flag(1, "T, the blocks of layers that the decoder is cut into; each says the whole translation")
    fuse: ChoiceEnum(list(FUSES)) = flag("linear", "how a block takes in what is shown: U [h ; e], or h + g (e - mask)")
    feed: ChoiceEnum(FEEDS) = flag("mask", "shown where nothing is revealed: the mask, or the last block's own words")
    source_copy: ChoiceEnum(list(COPIES)) = flag("none", "what the empty translation copies of the source's embeddings")
    # back end
    back_end: ChoiceEnum(list(BACK_ENDS)) = flag("length", "where words stand: at a predicted length, by CTC, or a DAG")
    upsample: float = flag(2.0, "positions of CTC's canvas, or vertices of the DAG, for each token of the source")
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
    two_pass: bool = flag(False, "a pass without gradient says what is wrong; else each block does for the next")
    keep_schedule: ChoiceEnum(list(KEEPS)) = flag("linear", "share of the translation revealed behind each block")
    block_weights: ChoiceEnum(list(BLOCK_WEIGHTS)) = flag("uniform", "weights of the blocks' losses")
    # decoding
    passes: int = flag(1, "passes of the decoder unless the task's --passes says otherwise")
    path_search: ChoiceEnum(SEARCHES) = flag(
        "lookahead", "how a DAG's path is found unless the task's --path-search says otherwise"
    )
