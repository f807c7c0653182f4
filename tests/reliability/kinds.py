"""Every kind of model, in a tiny size."""

from __future__ import annotations

from runs import MODEL
from support import TINY, TINY_BLOCKS, TINY_WORDS

KINDS: dict[str, tuple[list[str], str]] = {  # by architecture: its size, and other flags
    "dinoiser_toy": (TINY, "--store-ema --ema-decay 0.9 --self-conditioning random"),
    "difformer_toy": (TINY, ""),
    "cdcd_toy": (TINY, "--schedule-update 5 --canvas-positions 12"),
    "seqdiffuseq_toy": (TINY, "--schedule-update 3 --canvas-positions 12"),
    "sed_toy": (TINY, "--canvas-positions 12"),
    "plaid_toy": (TINY, "--schedule-update 5 --canvas-positions 12"),
    "diffuseq_v2_toy": (TINY, "--canvas-positions 12"),
    "mdlm_toy": (TINY_WORDS, "--time-sampler second_moment --schedule-modifier spindle"),
    "lddm_seq_toy": (TINY_WORDS, "--latents 2 --latents-start 3"),
    "lddm_fuji_toy": (TINY_WORDS, "--latents 2 --latents-start 3 --latents-own-time"),
    "sundae_toy": (TINY_WORDS, ""),
    "rdm_toy_uniform": (TINY_WORDS, ""),
    "cmlm_toy": (TINY_WORDS, ""),
    "glat_toy": (TINY_WORDS, ""),
    "diffglat_toy_ctc": (TINY_BLOCKS, ""),
    "latent_nat_toy_ctc": (TINY_BLOCKS, "--latents 2 --latents-start 3"),
    "diffglat_toy_dag": (TINY_BLOCKS, ""),
    "transformer": (MODEL.split()[2:], "--criterion label_smoothed_cross_entropy"),
}
