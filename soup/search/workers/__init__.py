"""Evaluating on several processes at once: on this host, on a Ray cluster, and ahead of the strategy."""
