"""Repairs of fairseq, torch, hydra and apex, by version; no other room looks at versions.

Each repair names the versions it is for and does nothing elsewhere.  Supported: fairseq 0.12.2 (Python 3.10) and
fairseq-fixed 0.12.3.1 (Python 3.11 and 3.12), torch 2.1 and newer.  hydra 1.0 / omegaconf 2.0 (below the first) and
hydra 1.3 / omegaconf 2.3 (below the second) need no repair for what this package uses; both are in the smoke test.
"""

# ruff: noqa: F401  other rooms say compat.NAME

from fairseq_diffusion.compat import building, checkpoints, finite, half, ranks, repairs, updates, values
from fairseq_diffusion.compat.archive import damage, malformed
from fairseq_diffusion.compat.checkpoints import (
    OUR_TASK,
    around_resuming,
    holds,
    is_noise_schedule,
    model_name,
    prefer_ema,
    refused_object,
    task_name,
    watched_loading,
    with_ema,
)
from fairseq_diffusion.compat.finite import check_finite
from fairseq_diffusion.compat.generation import around_generation, watched_tasks
from fairseq_diffusion.compat.installed import (
    INSTALL_LINES,
    OLDEST_FAIRSEQ,
    OLDEST_TORCH,
    distributions,
    fairseq_problem,
    require_fairseq,
    version_tuple,
)
from fairseq_diffusion.compat.interactive import read_every_line, refuse_line
from fairseq_diffusion.compat.quiet import start_quietly
from fairseq_diffusion.compat.repairs import allow_argparse_checkpoints, apex_state


def patch() -> None:
    """Apply every repair this installation needs; calling it again changes nothing."""
    require_fairseq()
    start_quietly()
    repairs.allow_argparse_checkpoints()
    repairs.allow_tensors_between_ranks()
    repairs.avoid_broken_apex()
    repairs.avoid_encoder_fast_path()
    repairs.copy_checkpoints_atomically()
    values.evaluate_values_alone()
    half.allow_bf16_without_tpu()
    half.flatten_on_cpu()
    half.skip_overflow_on_cpu()
    half.unscale_once()
    finite.guard_training()
    ranks.limit_waiting()
    updates.tell_criterions()
    checkpoints.wrap_checkpoint_loading()
    building.wrap_model_building()
    checkpoints.wrap_resuming()
