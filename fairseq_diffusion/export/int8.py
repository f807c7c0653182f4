"""Weights in 8 bits: signed, with a scale for each output; activations are quantised as they come, sums are fp32."""

from __future__ import annotations

from pathlib import Path

from fairseq_diffusion.export.graph import quiet


def quantised(graph: Path) -> None:
    """Quantise the products of a graph with its weights, in place."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = graph.with_suffix(".fp32")
    graph.rename(whole)
    with quiet():
        quantize_dynamic(
            whole, graph, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
    whole.unlink()
