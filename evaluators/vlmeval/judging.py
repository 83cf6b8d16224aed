"""Which benchmarks of a run a judge grades, and the judge: named, reached and remembered once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from evaluators.answering.judge_session import JudgeSession, RepliesOfOthers, open_judge
from evaluators.answering.llm_judge import LLMJudge
from evaluators.answering.response_cache import ResponseCache
from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.catalog import known_benchmark
from evaluators.vlmeval.metrics import metric_of
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate
from soup.evaluation.dealing import dealer_of
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

__all__ = ["Judging"]


class Judging:
    """The judge that the settings name, if they name one, for the benchmarks that need it or for which it is wanted.

    Args:
        settings: They name the judge, and the benchmarks that it grades besides those that need it.
        release: Gives back what the candidates' engine holds, where a judge does not fit beside it.

    Raises:
        EvaluatorError: half of a judge is named, or an unknown benchmark for it.
    """

    def __init__(self, settings: EvalSettings, release: Callable[[], None]) -> None:
        self.settings = settings
        self.judge = open_judge(settings, release)
        self._replies: dict[str, RepliesOfOthers] = {}  # by benchmark
        self._wanted = {_wanted(name) for name in settings.judge_for}
        self._first: str | None = None  # a benchmark that will need the judge
        self._was_reached = False

    def judge_of(self, entry: VLMEvalBenchmark) -> LLMJudge | None:
        """Return the judge for this benchmark, if it needs one or the user wants one.

        Raises:
            EvaluatorError: it needs one and none is named, or has no use for the one that is wanted.
        """
        is_wanted = entry.name in self._wanted
        if is_wanted and not metric_of(entry).can_use_judge:
            raise EvaluatorError(
                f"{entry.name}: its metric has no use for a judge; leave it out of {option_name('judge_for')}."
            )
        if not is_wanted and not entry.needs_judge:
            return None
        if self.judge is None:
            raise EvaluatorError(
                f"{entry.name}: its answers are graded by a judge, and none is named. Pass "
                f"{option_name('judge_url')} and {option_name('judge_model')} (any endpoint that speaks OpenAI's chat "
                "completions; its key, if it wants one, in the environment variable "
                f"{self.settings.judge_key_env}), or leave {entry.name} out of {option_name('eval')}."
            )
        self._first = self._first or entry.name
        return self.judge

    def session(self, entry: VLMEvalBenchmark, candidate: Candidate, cache: ResponseCache) -> JudgeSession | None:
        """Return what grades a candidate's answers to this benchmark; None where no judge does.

        Args:
            entry: The benchmark.
            candidate: Whose answers.
            cache: Where the judge's replies are looked up, and kept as they come.
        """
        if (judge := self.judge_of(entry)) is None:
            return None
        judge.logs = candidate.logs
        others = self._replies.setdefault(entry.name, RepliesOfOthers())
        on_grades = partial(candidate.answered, what="grades")
        facts = (cache, entry.name, entry.judge_tokens, others, dealer_of(candidate))
        return JudgeSession(judge, *facts, on_grades=on_grades)

    def check(self) -> None:
        """Reach the judge before the engine's hours, not after them: whichever benchmark comes first.

        Raises:
            EvaluatorError: it does not answer.
        """
        if self.judge is not None and self._first is not None and not self._was_reached:
            self.judge.check_reachable(self._first)
            self._was_reached = True

    def make_room(self) -> None:
        """Have a judge on this machine give back what it holds: candidates answer next."""
        if self.judge is not None:
            self.judge.make_room()


def _wanted(name: str) -> str:
    """Return the name, as `--eval` knows it, of a benchmark for which the user wants the judge."""
    try:
        return known_benchmark(Benchmark(name, "vlmeval", name)).name
    except EvaluatorError as reason:
        raise EvaluatorError(f"{option_name('judge_for')}: {reason}") from reason
