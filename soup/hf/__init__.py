"""What is transformers': names on disk and in memory, components, processors."""
