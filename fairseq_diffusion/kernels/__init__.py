"""Operations that never hold all logits at once.  torch only; choice.py decides where Triton's kernels run."""
