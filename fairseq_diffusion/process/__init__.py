"""The forward process: what is corrupted (state), how much (schedule), and with which noise.  torch only."""
