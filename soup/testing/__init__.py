"""For plug-in authors: tiny checkpoints, and the checks that soup's own plug-ins pass. pytest is not needed.

    from soup.testing import check_method, check_strategy, check_evaluator

    def test_my_method():    check_method(MyMethod(strength=0.3))
    def test_my_strategy():  check_strategy(my_strategy)
    def test_my_evaluator(tmp_path):
        with tiny_candidate(tiny_checkpoint(tmp_path / "model"), tmp_path / "scratch") as candidate:
            check_evaluator(MyEvaluator, Benchmark("mine:task", "mine", "task"), candidate)
    def test_my_engine():    check_engine(MyEngine, [one_candidate, another], prompts)
    def test_on_a_real_run():
        table = ScoreTable.from_run("ckpts.soup")
        my_strategy(table.pool, table)

A check raises AssertionError with what is wrong. The same call gives the same tiny checkpoint on every machine.
"""

from __future__ import annotations

from soup.testing.engine_conformance import FakeEngine, check_engine
from soup.testing.evaluator_conformance import check_evaluator
from soup.testing.method_conformance import check_method
from soup.testing.score_table import ScoreTable
from soup.testing.strategy_conformance import check_strategy
from soup.testing.tiny_checkpoints import TINY_SHAPES, tiny_candidate, tiny_checkpoint, tiny_pool, tiny_tensor

__all__ = [
    "TINY_SHAPES",
    "FakeEngine",
    "ScoreTable",
    "check_engine",
    "check_evaluator",
    "check_method",
    "check_strategy",
    "tiny_candidate",
    "tiny_checkpoint",
    "tiny_pool",
    "tiny_tensor",
]
