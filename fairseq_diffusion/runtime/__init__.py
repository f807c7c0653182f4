"""Translation with a model that `fairseq-diffusion export` wrote: ONNX Runtime and numpy, no torch and no fairseq."""

from fairseq_diffusion.runtime.model import ExportedModel, load

__all__ = ["ExportedModel", "load"]
