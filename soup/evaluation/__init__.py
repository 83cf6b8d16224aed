"""How soups are evaluated: the words of evaluators (`api`), config, objective, suite, candidate, journal, scorer."""

from soup.evaluation.api import ALL, Benchmark, Candidate, Evaluator, Score, Split
from soup.evaluation.config import EvalConfig, EvalSettings

__all__ = ["ALL", "Benchmark", "Candidate", "EvalConfig", "EvalSettings", "Evaluator", "Score", "Split"]
