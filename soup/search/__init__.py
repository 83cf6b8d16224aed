"""How a soup is chosen: strategies, the session of a run, its result, workers."""
