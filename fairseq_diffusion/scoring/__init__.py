"""How good translations are: every figure beside what must be said with it."""
