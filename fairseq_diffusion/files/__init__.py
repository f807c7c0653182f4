"""Reading and writing: what fairseq prints, histories, texts, and what lies beside a checkpoint."""
