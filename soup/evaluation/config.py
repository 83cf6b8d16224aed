"""How soups are evaluated: what makes candidates answer, and which benchmarks choose, weighed and guarded how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from soup.errors import EvaluatorError
from soup.evaluation.api import ALL, Benchmark, Split, may_have_parts, parse_benchmarks
from soup.evaluation.objective import PLAIN, Objective
from soup.support.options import option, option_name, refuse_wrong_type

__all__ = ["EvalConfig", "EvalSettings"]

EVAL_HELP = (
    "Benchmarks, comma-separated and repeatable: opencompass or some of its eight (mmbench, mmstar, mmmu, mathvista, "
    "hallusionbench, ai2d, ocrbench, mmvet), lm_eval:TASK[@DIR], python:FILE.py:FUNCTION, command:TEMPLATE, or a "
    "plug-in's name."
)


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How candidates are made to answer; a part of it that can change a score belongs into `Evaluator.identity`.

    Args:
        model: `auto` (an image-text-to-text checkpoint of transformers, our POINTS family among them), `vlmeval:CLASS`
            (VLMEvalKit's wrapper) or `FILE.py:CLASS`, the user's own.
        batch_size: Questions asked at a time; `auto` starts at 64 and halves whenever memory runs out.
        timeout_seconds: Bounds one evaluation of one candidate on one benchmark.
        trust_remote_code: Whether code that comes with a checkpoint may run.
        judge_url: An endpoint that speaks OpenAI's chat completions, for grading.
        judge_model: The model there.
        judge_key_env: The environment variable that holds its key, which stands nowhere else.
        judge_for: Benchmarks that use the judge though they could do without.
    """

    model: str = option("auto", "What answers.", "Evaluate", metavar="auto|vlmeval:CLASS|FILE.py:CLASS")
    batch_size: int | Literal["auto"] = option(
        "auto", "Questions at a time; auto finds it.", "Evaluate", "batch size", metavar="auto|N"
    )
    timeout_seconds: float | None = option(
        None,
        "Bound one evaluation.",
        "Evaluate",
        "number",
        flag="timeout",
        metavar="SECONDS",
        minimum=0,
        above_minimum=True,
    )
    trust_remote_code: bool = option(False, "Run code that comes with a checkpoint.", "Evaluate", "flag")
    judge_url: str | None = option(
        None, "An endpoint that speaks OpenAI's chat completions, for grading.", "Evaluate", metavar="URL"
    )
    judge_model: str | None = option(None, "The model there.", "Evaluate", metavar="NAME")
    judge_key_env: str = option(
        "OPENAI_API_KEY", "The environment variable that holds the endpoint's key.", "Evaluate", metavar="VARIABLE"
    )
    judge_for: tuple[str, ...] = option(
        (),
        "Ask the judge for these benchmarks too, where matching finds no answer. Repeatable.",
        "Evaluate",
        "names",
        metavar="NAMES",
    )


@dataclass(frozen=True)
class EvalConfig(EvalSettings):
    """What a search or an evaluation scores by: benchmarks, the split of their questions, the objective, workers.

    Args:
        benchmarks: Their names, as on the command line: `"mmbench,ocrbench"`, or a list of such texts.
        split: This share of each benchmark's questions chooses, the others only report.
        objective: How benchmarks are weighed in the overall, and guarded against a drop.
        workers: So many processes evaluate candidates at once, one GPU each; 0: this process does.
        ray: The address of a Ray cluster whose actors evaluate, or `local`.

    Raises:
        EvaluatorError: values of a wrong type, a split outside of 0 to 1, or an objective or split of no benchmarks.
    """

    benchmarks: str | Sequence[str] = option((), EVAL_HELP, "Evaluate", "texts", flag="eval", metavar="NAMES")
    split: float | None = option(
        None, "This share of the questions chooses, the rest only reports.", "Evaluate", "number", metavar="F"
    )
    objective: Objective = PLAIN
    workers: int = option(
        0, "Processes that evaluate at once, a GPU each.", "Evaluate", "count", metavar="N", minimum=0
    )
    ray: str | None = option(
        None, "Evaluate on a Ray cluster, one actor a GPU (or --workers of them).", "Evaluate", metavar="ADDRESS|local"
    )

    def __post_init__(self) -> None:
        refuse_wrong_type(
            {"split": self.split, "objective": self.objective, "workers": self.workers, "ray": self.ray},
            {"split": (float, int, type(None)), "objective": Objective, "workers": int, "ray": (str, type(None))},
            EvaluatorError,
        )
        texts = [self.benchmarks] if isinstance(self.benchmarks, str) else self.benchmarks
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise EvaluatorError(f"benchmarks: expected the names of benchmarks, found {self.benchmarks!r:.80}.")

    @property
    def settings(self) -> EvalSettings:
        """The part of it that evaluators are built from."""
        names = [entry.name for entry in dataclasses.fields(EvalSettings)]
        return EvalSettings(**{name: getattr(self, name) for name in names})

    @property
    def selection(self) -> Split:
        """The questions that choose."""
        return ALL if self.split is None else Split("selection", self.split)

    def parse(self) -> tuple[Benchmark, ...]:
        """The benchmarks that its texts name; none where there are no texts.

        Raises:
            EvaluatorError: an unknown benchmark, a split that is no share, or an objective or split of no benchmarks.
        """
        if not self.benchmarks:
            if self.objective != PLAIN or self.split is not None:
                names = ", ".join(option_name(name) for name in ("weights", "guard", "split"))
                raise EvaluatorError(f"{names} are about benchmarks: pass {option_name('eval')}, too.")
            return ()
        texts = [self.benchmarks] if isinstance(self.benchmarks, str) else self.benchmarks
        benchmarks = tuple(parse_benchmarks(texts, self.selection))
        if not any(may_have_parts(benchmark) for benchmark in benchmarks):
            self.objective.check([benchmark.name for benchmark in benchmarks])
        return benchmarks
