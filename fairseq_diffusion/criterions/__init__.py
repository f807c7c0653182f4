"""The fairseq skin of the loss."""
