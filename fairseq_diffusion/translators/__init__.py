"""The parts of a model put together: losses on one side, decoding on the other.  torch only."""
