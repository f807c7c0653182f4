"""The report as a dictionary."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import fairseq
import torch

from fairseq_diffusion import __version__, compat
from fairseq_diffusion.reporting.recorder import Recorder
from fairseq_diffusion.reporting.scores import scores_of

PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}


def facts_of(recorder: Recorder) -> dict[str, Any]:
    own = dict(recorder.generator.describe()) if hasattr(recorder.generator, "describe") else {}
    model = {key: own.pop(key, None) for key in ("model_seconds", "sentences", "compile_seconds")}
    precision, task = own.pop("precision", None) or precisions(recorder.models), recorder.cfg.task
    return {
        "system": recorder.checkpoints[0]["system"],
        "task": getattr(task, "_name", None) or getattr(task, "task", None),
        "checkpoints": recorder.checkpoints,
        "data": data_of(recorder),
        "decoding": own or usual_decoding(recorder),
        "scores": scores_of(recorder),
        "speed": speed_of(recorder, **model),
        "environment": {**environment_of(recorder.models[0]), "precision": precision},
    }


def data_of(recorder: Recorder) -> dict[str, Any]:
    """`skipped` is None for a shard: the other sentences are the other shards'."""
    decoded, sentences = len(recorder.hypotheses), len(recorder.dataset)
    languages = [getattr(recorder.task_cfg, side, None) for side in ("source_lang", "target_lang")]
    return {
        "directory": recorder.cfg.task.data,
        "subset": recorder.cfg.dataset.gen_subset,
        "languages": "-".join(map(str, languages)),
        "decoded": decoded,
        "sentences": sentences,
        "skipped": sentences - decoded if recorder.shards == 1 else None,
        "shard": recorder.shard,
        "shards": recorder.shards,
    }


def usual_decoding(recorder: Recorder) -> dict[str, Any]:
    """Decoding by a generator without `describe`, such as fairseq's beam search."""
    generation = recorder.cfg.generation
    facts = {
        "decoder": type(recorder.generator).__name__,
        "beam": generation.beam,
        "lenpen": generation.lenpen,
        "seed": recorder.cfg.common.seed,
    }
    if generation.lm_path is not None:
        facts["language_model"] = f"{generation.lm_path} (weight {generation.lm_weight})"
    return facts | ({"sampling": True} if generation.sampling else {})


def speed_of(
    recorder: Recorder, model_seconds: float | None, sentences: int | None, compile_seconds: float | None
) -> dict[str, Any]:
    """End to end is from the first batch to fairseq's end, less what the recorder took; the rest is a part of it."""
    first = recorder.first_batch or recorder.ended
    decoded = len(recorder.hypotheses)
    return {
        "loading_seconds": first - recorder.started,
        "end_to_end": rate(decoded, recorder.ended - first - recorder.own_seconds),
        "inference_step": rate(decoded, recorder.inference_seconds),
        "model": rate(decoded if sentences is None else sentences, model_seconds),
        "compile_seconds": compile_seconds or 0.0,
        "printed": not recorder.cfg.common_eval.quiet,
        "max_sentences": recorder.cfg.dataset.batch_size,
        "max_tokens": recorder.cfg.dataset.max_tokens,
    }


def rate(sentences: int, seconds: float | None) -> dict[str, Any] | None:
    """Sentences per second, if the seconds are known."""
    if seconds is None:
        return None
    return {"seconds": seconds, "sentences_per_second": sentences / seconds if seconds else None}


def environment_of(model: Any) -> dict[str, Any]:
    installed = " and ".join(f"{name} {number}" for name, number in compat.distributions().items())
    return {
        "device": device_of(next(model.parameters()).device),
        "torch": torch.__version__,
        "fairseq": installed or f"{fairseq.__version__} from a source tree",
        "python": platform.python_version(),
        "fairseq_diffusion": __version__,
    }


def device_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The name of the processor by Linux; platform's is often empty."""
    listed = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", listed.read_text(), re.MULTILINE) if listed.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def precisions(models: list[Any]) -> str:
    """One if all are the same; else each, in the order of the checkpoints.

    Those of the weights, not of the flags: fairseq-generate ignores --bf16.
    """
    dtypes = [next(model.parameters()).dtype for model in models]
    found = [PRECISIONS.get(dtype, str(dtype)) for dtype in dtypes]
    return found[0] if len(set(found)) == 1 else ", ".join(found)
