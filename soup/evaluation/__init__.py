"""How soups are evaluated: the words of evaluators (`api`), objective, suite, candidate, journal, scorer."""

from soup.evaluation.api import ALL, Benchmark, Candidate, Evaluator, Score, Settings, Split

__all__ = ["ALL", "Benchmark", "Candidate", "Evaluator", "Score", "Settings", "Split"]
