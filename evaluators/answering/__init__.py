"""How a checkpoint answers prompts: batching, hot swap, the response cache, engines."""
