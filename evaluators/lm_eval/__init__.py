"""Text benchmarks by EleutherAI's lm-eval."""
