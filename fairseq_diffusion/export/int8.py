"""Weights in 8 bits: signed, with a scale for each output; activations are quantised as they come, sums are fp32."""

from __future__ import annotations

from pathlib import Path

from fairseq_diffusion.export.graph import quiet


def quantised(graph: Path) -> None:
    """Quantise the products of a graph with its weights, in place."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded = graph.with_suffix(".folded")
    options = onnxruntime.SessionOptions()
    # a weight that is first sliced or transposed is one only when that is done
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    with quiet():
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        quantize_dynamic(
            folded, graph, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
    folded.unlink()
