"""Pictures of a training and of a decoding; only `draw` needs matplotlib."""
