"""OpenCompass's benchmarks by VLMEvalKit: data sets, prompts, metrics, the LLM judge."""
