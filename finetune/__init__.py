"""How the pool is made: configuration, data, training, and the POINTS family of models."""
