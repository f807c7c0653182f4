"""The task's flags: data as in fairseq's translation task, and what decoding needs beyond fairseq's own flags."""

from dataclasses import dataclass
from typing import Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II

from fairseq_diffusion.decoding.selection import SELECTIONS
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.network.length import BEAMS
from fairseq_diffusion.sampler.rules import SAMPLERS


@dataclass
class DiffusionTranslationConfig(TranslationConfig):
    """Steps, length beam and history are fairseq's --iter-decode-max-iter, --iter-decode-with-beam and
    --retain-iter-history."""

    max_source_positions: int = flag(256, "longest source, in tokens with the end of sentence")
    max_target_positions: int = flag(256, "longest target, in tokens with the end of sentence")
    sampler: Optional[ChoiceEnum(list(SAMPLERS))] = flag(None, "sampler (default: the one of the model's system)")
    told_start: Optional[float] = flag(None, "cedi: noise level sigma told to the network at the first step")
    told_end: Optional[float] = flag(None, "cedi: noise level sigma told to the network behind the last step")
    final_time: float = flag(1e-3, "diffusion time at which sampling ends")
    length_beam: ChoiceEnum(BEAMS) = flag("top_k", "lengths to try: the likeliest, or the likeliest and its neighbours")
    noise_beam: int = flag(1, "noises to try for each length")
    selection: ChoiceEnum(list(SELECTIONS)) = flag(
        "score",
        "choose by model score, by BLEU-MBR among all candidates, or by MBR within each length and then among them",
    )
    oracle_length: bool = flag(False, "FOR ANALYSIS ONLY: decode at the reference's length")
    use_ema: bool = flag(False, "load the averaged weights that --store-ema kept, where checkpoints are loaded")
    decode_seed: int = II("common.seed")
