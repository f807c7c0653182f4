"""Encoder, denoiser and length head.  torch only."""
