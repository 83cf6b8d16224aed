"""A strategy of your own: the mean of all models that are nearly as good as the best one.

soup cook --strategy examples/custom/strategy.py:near_the_best --strategy-arg points=15 \
    --pool soup-demo/ckpts --eval demo:colour,shape,place -o soup-demo/near-the-best
"""

from __future__ import annotations

from soup.search.strategies import Budget, budget


# What it costs is known before the first evaluation: each model alone, and then one soup.
@budget(lambda count, points=2.0: Budget(singles=count, soups=1))
def near_the_best(pool, score, *, points=2.0):
    """Average all ingredients whose overall is at most `points` below the best one's.

    Args:
        pool: The ingredients; a strategy only hands them on.
        score: Scores the mean of some of them. What was scored before costs nothing.
        points: An option of your own, which `--strategy-arg points=15` sets.
    """
    overall = {ingredient: score([ingredient]).overall for ingredient in pool}
    best = max(overall.values())
    return [ingredient for ingredient in pool if overall[ingredient] >= best - points]
