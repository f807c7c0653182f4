"""Writing a model for use without torch and fairseq: its decoding as an ONNX graph, and what it needs of text."""
