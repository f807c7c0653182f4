"""The toy's systems, and a run's recipe: what is trained, how long and how fast, and on how much."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class System(NamedTuple):
    """Flags of fairseq-train, updates and learning rate, and which of the examples' flags say otherwise."""

    flags: str
    updates: int = 2400
    lr: float = 2e-3
    updates_flag: str = "updates"
    lr_flag: str = "lr"


OURS = "--task diffusion_translation --criterion diffusion_loss --arch"
AR, DINOISER, PLAIN, DIFFORMER = "Transformer", "DINOISER", "DINOISER, no clipping", "Difformer"
CDCD, SEQDIFFUSEQ, DIFFUSEQ, DIFFUSEQ_V2 = "CDCD", "SeqDiffuSeq", "DiffuSeq", "DiffuSeq-v2"
SED, GENIE, PLAID = "SED, random vectors", "GENIE, not pretrained", "Plaid"
NAT, GLAT, GLAT_CTC, DSLP, CMLM, DAG = "NAT", "GLAT", "GLAT + CTC", "DSLP", "CMLM", "DA-Transformer"
DIFFGLAT_2, DIFFGLAT_3, DIFFGLAT_6 = (f"Diff-Glat, T = {blocks}" for blocks in (2, 3, 6))
DIFFGLAT_CTC, DIFFGLAT_DAG = "Diff-Glat CTC", "Diff-Glat DAG"
MDLM, SUNDAE, VQ, DDCAP, DIFFUSIONBERT = "MDLM", "SUNDAE", "VQ-Diffusion", "DDCap", "DiffusionBERT"
LDDM_SEQ, LDDM_FUJI = "LDDM, SEQ", "LDDM, FUJI"
D3PM_ABSORB, SEDD_ABSORB, RDM_ABSORB = (f"{name}, absorbing" for name in ("D3PM", "SEDD", "RDM"))
D3PM_UNIFORM, SEDD_UNIFORM, RDM_UNIFORM = (f"{name}, uniform" for name in ("D3PM", "SEDD", "RDM"))

SYSTEMS = {  # the longest training first
    DIFFGLAT_DAG: System(f"{OURS} diffglat_toy_dag --upsample 4", updates=1600),
    DAG: System(f"{OURS} da_transformer_toy --upsample 4", updates=1600),
    DIFFGLAT_CTC: System(f"{OURS} diffglat_toy_ctc", updates=1600),
    GLAT_CTC: System(f"{OURS} glat_toy_ctc", updates=1600),
    DSLP: System(f"{OURS} dslp_toy", updates=1600),
    DIFFGLAT_6: System(f"{OURS} diffglat_toy --blocks 6 --glance-updates 2400", updates=2400),
    DIFFGLAT_3: System(f"{OURS} diffglat_toy --blocks 3", updates=1600),
    DIFFGLAT_2: System(f"{OURS} diffglat_toy --blocks 2", updates=1600),
    GLAT: System(f"{OURS} glat_toy", updates=1600),
    CMLM: System(f"{OURS} cmlm_toy", updates=1600),
    NAT: System(f"{OURS} nat_toy", updates=1600),
    DINOISER: System(f"{OURS} dinoiser_toy"),
    PLAIN: System(f"{OURS} dinoiser_toy --schedule-modifier none"),
    DIFFORMER: System(f"{OURS} difformer_toy", updates_flag="difformer_updates", lr_flag="difformer_lr"),
    DIFFUSEQ: System(f"{OURS} diffuseq_toy"),
    DIFFUSEQ_V2: System(f"{OURS} diffuseq_v2_toy"),
    SEQDIFFUSEQ: System(f"{OURS} seqdiffuseq_toy"),
    GENIE: System(f"{OURS} genie_toy"),
    PLAID: System(f"{OURS} plaid_toy"),
    SED: System(f"{OURS} sed_toy"),
    CDCD: System(f"{OURS} cdcd_toy"),
    SUNDAE: System(f"{OURS} sundae_toy"),
    SEDD_UNIFORM: System(f"{OURS} sedd_toy_uniform --clip-norm 1"),
    D3PM_UNIFORM: System(f"{OURS} d3pm_toy_uniform"),
    VQ: System(f"{OURS} vq_diffusion_toy"),
    RDM_UNIFORM: System(f"{OURS} rdm_toy_uniform --clip-norm 1"),
    D3PM_ABSORB: System(f"{OURS} d3pm_toy_absorb"),
    SEDD_ABSORB: System(f"{OURS} sedd_toy_absorb"),
    RDM_ABSORB: System(f"{OURS} rdm_toy_absorb"),
    DIFFUSIONBERT: System(f"{OURS} diffusionbert_toy"),
    DDCAP: System(f"{OURS} ddcap_toy"),
    LDDM_SEQ: System(f"{OURS} lddm_seq_toy"),
    LDDM_FUJI: System(f"{OURS} lddm_fuji_toy"),
    MDLM: System(f"{OURS} mdlm_toy"),
    AR: System(
        "--task translation --arch transformer --criterion label_smoothed_cross_entropy --label-smoothing 0.1 "
        "--share-decoder-input-output-embed --encoder-embed-dim 128 --decoder-embed-dim 128 "
        "--encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 4 "
        "--decoder-attention-heads 4 --dropout 0 --encoder-layers 3 --decoder-layers 3",
        updates=1000,
        updates_flag="ar_updates",
    ),
}
DIFFUSION = (DINOISER, PLAIN, DIFFORMER)
DEMO = (DINOISER, NAT, AR)
FULL_DEMO = (*DIFFUSION, AR)
TOKENS = (
    *(MDLM, D3PM_ABSORB, D3PM_UNIFORM, SEDD_ABSORB, SEDD_UNIFORM, RDM_ABSORB, RDM_UNIFORM),
    *(DIFFUSIONBERT, VQ, DDCAP, SUNDAE, LDDM_SEQ, LDDM_FUJI),
)
VECTORS = (DINOISER, DIFFORMER, CDCD, SEQDIFFUSEQ, DIFFUSEQ, DIFFUSEQ_V2, SED, GENIE, PLAID)
ONE_PASS = tuple(name for name in SYSTEMS if name not in (*DIFFUSION, *VECTORS, *TOKENS))


@dataclass(frozen=True)
class Recipe:
    """What a run is made of; `systems` has each one's updates and learning rate."""

    size: int = 50_000
    test_size: int = 200
    seed: int = 1
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, systems: Iterable[str], usual: dict[str, int] | None = None, **given: Any) -> Recipe:
        """For these systems; what is not given, by the names in MEANINGS, is as above, but for the `usual` updates."""
        trainings = {
            name: {
                "updates": given.get(SYSTEMS[name].updates_flag, (usual or {}).get(name, SYSTEMS[name].updates)),
                "lr": given.get(SYSTEMS[name].lr_flag, SYSTEMS[name].lr),
            }
            for name in systems
        }
        sizes = {name: given[name] for name in ("size", "test_size", "seed") if name in given}
        return cls(**sizes, systems=trainings)


MEANINGS = {  # of the flags; one of a training sets all systems that name it
    "size": "sentences to train on",
    "test_size": "sentences to test on",
    "seed": "seed of language, training and decoding",
    "updates": "updates of the systems without such a flag of their own",
    "difformer_updates": f"updates of {DIFFORMER}",
    "ar_updates": f"updates of the {AR}",
    "lr": "learning rate of the systems without such a flag of their own",
    "difformer_lr": f"learning rate of {DIFFORMER}",
}


def add_flags(parser: argparse.ArgumentParser, systems: Sequence[str], shorter: dict[str, int] | None = None) -> None:
    """The flags of a recipe of these systems, and of those with the updates in `shorter`."""
    usual: dict[str, list[Any]] = {"size": [Recipe.size], "test_size": [Recipe.test_size], "seed": [Recipe.seed]}
    for name, updates in (shorter or {}).items():
        usual.setdefault(SYSTEMS[name].updates_flag, []).append(updates)
    for system in map(SYSTEMS.__getitem__, systems):
        usual.setdefault(system.updates_flag, []).append(system.updates)
        usual.setdefault(system.lr_flag, []).append(system.lr)
    for name, meaning in MEANINGS.items():
        if name in usual:
            about = f"{meaning} ({' or '.join(map(str, dict.fromkeys(usual[name])))})"
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=type(usual[name][0]), default=argparse.SUPPRESS, help=about)


def flags_given(options: argparse.Namespace) -> dict[str, Any]:
    """Which of a recipe's flags were given."""
    return {name: value for name, value in vars(options).items() if name in MEANINGS}
