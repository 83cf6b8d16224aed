"""From a recipe to a checkpoint: recipe, pool, the loop over blocks, a block's arithmetic, methods, model card."""
