"""Fused operations, each beside its portable reference.  torch only."""
