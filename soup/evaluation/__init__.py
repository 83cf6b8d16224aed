"""How soups are evaluated: the words of evaluators (`api`), objective, suite, candidate, journal, scorer."""

from soup.evaluation.api import ALL, Benchmark, Candidate, EvalSettings, Evaluator, Score, Split

__all__ = ["ALL", "Benchmark", "Candidate", "EvalSettings", "Evaluator", "Score", "Split"]
