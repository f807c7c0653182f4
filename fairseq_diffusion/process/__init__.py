"""The forward process: how much is corrupted at which time.  torch only."""
