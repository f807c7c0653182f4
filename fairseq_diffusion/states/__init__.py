"""The state that is corrupted: words as vectors.  torch only."""
