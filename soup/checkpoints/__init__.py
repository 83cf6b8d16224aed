"""Checkpoints on disk: dtypes, shards, the reader, the writer, digests, side files, the Hub."""
