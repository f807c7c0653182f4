"""The task's flags: data as in fairseq's translation task, and what decoding needs beyond fairseq's own flags."""

from dataclasses import dataclass
from functools import partial
from typing import Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II

from fairseq_diffusion.alignment.dag import SEARCHES
from fairseq_diffusion.decoding.execution import EAGER, EXECUTIONS
from fairseq_diffusion.decoding.selection import UNITS, UTILITIES
from fairseq_diffusion.kernels.choice import MODES
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.network.length import BEAMS
from fairseq_diffusion.samplers.gaussian import SAMPLERS
from fairseq_diffusion.samplers.grid import GRIDS

gaussian, glancing = partial(flag, only="diffusion"), partial(flag, only="glancing")  # refused with another kind


@dataclass
class DiffusionTranslationConfig(TranslationConfig):
    """Steps, length beam, n-best, history and an AR reranker are fairseq's --iter-decode-max-iter,
    --iter-decode-with-beam, --nbest, --retain-iter-history and --iter-decode-with-external-reranker."""

    max_source_positions: int = flag(256, "longest source, in tokens with the end of sentence")
    max_target_positions: int = flag(256, "longest target, in tokens with the end of sentence")
    # a Gaussian model's sampler, and what it starts from
    sampler: Optional[ChoiceEnum(list(SAMPLERS))] = gaussian(None, "sampler (default: the one of the model's system)")
    grid: Optional[ChoiceEnum(list(GRIDS))] = gaussian(
        None, "steps even in time, in sigma, in log SNR, or taken from the model's own (default: the system's)"
    )
    early_stop: Optional[float] = gaussian(
        None, "share of the steps, the last ones, to leave out; 0.25 takes 15 of 20 (default: the system's)"
    )
    decode_noise_factor: Optional[float] = gaussian(None, "noise factor F in decoding (default: the system's)")
    told_start: Optional[float] = gaussian(
        None, "cedi, fixed_t: noise level sigma told to the network at the first step"
    )
    told_end: Optional[float] = gaussian(None, "cedi: noise level sigma told to the network behind the last step")
    final_time: Optional[float] = gaussian(None, "diffusion time at which sampling ends (default: 0.001)")
    eta: Optional[float] = gaussian(None, "share of fresh noise, from 0 (ddim) to 1 (ddpm) (default: the sampler's)")
    # its clean estimate
    guidance: float = gaussian(1.0, "weight of classifier-free guidance; needs a model trained with --source-drop")
    clamp: bool = gaussian(False, "move each estimate to the embedding of its most probable token")
    prune_after: str = gaussian(
        "", "steps behind which the worse half of a sentence's candidates is dropped, as in 5,10"
    )
    stop_stable: int = gaussian(0, "a candidate is finished once its tokens stayed the same so many steps (0: never)")
    execution: ChoiceEnum(EXECUTIONS) = gaussian(
        EAGER,
        "how a step is run: as it is, by torch.compile, or as a CUDA graph; the last two are made once for each shape "
        "of a batch",
    )
    # a glancing model's passes, and the words read off its canvas
    exit_block: Optional[int] = glancing(
        None, "read the translation off this block of the decoder, counted from 1 (default: the last)"
    )
    passes: Optional[int] = glancing(
        None, "whole passes of the decoder, each with the least certain words hidden again (default: the system's)"
    )
    path_search: Optional[ChoiceEnum(SEARCHES)] = glancing(
        None, "search for the best path of words in a graph (default: the system's)"
    )
    lookahead_weight: float = glancing(
        1.0, "weight of a word's log-probability beside the link's in path search lookahead"
    )
    vertex_tokens: int = glancing(5, "words considered at each vertex by path searches sample and beam")
    drop_repeats: bool = glancing(
        False, "drop a word that repeats its neighbour (a model without CTC or DAG may stutter)"
    )
    # candidates
    temperature: float = flag(
        1.0,
        "divide by it the score (Gaussian) or the log-probabilities sampled from; below 1 the model is trusted more",
    )
    length_beam: Optional[ChoiceEnum(BEAMS)] = flag(
        None, "lengths to try: the likeliest, or the likeliest and its neighbours (default: the system's)"
    )
    noise_beam: int = flag(1, "noises to try for each length")
    selection: Optional[str] = flag(
        None,
        "how to choose: score (the model's), joint (the same with the length's), mbr, mbr_two_level (within each "
        "length, then among them), rescore (an AR model's score), or a chain such as mbr:5,rescore (default: rescore "
        "where there is an AR model, else score)",
    )
    mbr_utility: ChoiceEnum(UTILITIES) = flag("bleu", "what MBR compares candidates by")
    mbr_units: ChoiceEnum(UNITS) = flag("tokens", "what MBR counts n-grams of: subword tokens, or whole words")
    oracle_length: bool = flag(False, "FOR ANALYSIS ONLY: decode at the reference's length")
    # batches
    candidate_positions: Optional[int] = flag(
        None,
        "decode a batch in buckets of so many positions at most: sentences x candidates x longest candidate (default: "
        "on a CPU 1024, in one pass 2048; on a GPU 32768)",
    )
    # around it
    kernels: ChoiceEnum(MODES) = flag(
        "auto",
        "what works through the vocabulary, in training and decoding: Triton's kernels on a GPU that has them and "
        "portable ones elsewhere, or always the one or the other",
    )
    raw_reference: Optional[str] = flag(None, "file of untokenised references: what the report's sacreBLEU is against")
    use_ema: bool = flag(False, "load the averaged weights that --store-ema kept, where checkpoints are loaded")
    decode_seed: int = II("common.seed")
