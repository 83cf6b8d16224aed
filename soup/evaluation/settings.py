"""What makes candidates answer: all that an evaluator is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from soup.support.options import option, options_of

__all__ = ["ENGINE_OPTIONS", "JUDGE_OPTIONS", "EvalSettings"]

ENGINE_OPTIONS = ("model", "engine", "engine_args", "engine_url", "batch_size")
"""What answers, and how it is asked."""
JUDGE_OPTIONS = ("judge_url", "judge_model", "judge_engine", "judge_engine_args", "judge_images")
"""Who the judge is, and what runs it."""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How candidates are made to answer; a part of it that can change a score belongs into `Evaluator.identity`.

    Args:
        model: `auto` (an image-text-to-text checkpoint of transformers, our POINTS family among them), `FILE.py:CLASS`
            (the user's own) or `LIBRARY:CLASS` (a library's wrapper of a model).
        engine: What generates answers: a registered engine, or `FILE.py:CLASS`.
        engine_args: Arguments of the engine, by name.
        engine_url: An endpoint that serves the model already, for the engine `openai`.
        batch_size: Questions asked at a time; `auto` starts at 64 and halves whenever memory runs out.
        timeout_seconds: Bounds one evaluation of one candidate on one benchmark.
        trust_remote_code: Whether code that comes with a checkpoint may run.
        judge_url: An endpoint that speaks OpenAI's chat completions, for grading.
        judge_model: The model there; or, without a URL, the directory of a language model's checkpoint.
        judge_engine: What runs a judge that is a checkpoint.
        judge_engine_args: Arguments of that engine, by name.
        judge_requests: How many questions the judge is asked at once.
        judge_key_env: The environment variable that holds its key, which stands nowhere else.
        judge_images: Whether a judge that compares answers is shown the question's pictures, too.
        judge_for: Benchmarks that use the judge though they could do without.
        shots: So many other questions of a benchmark, with their answers, stand before each question.
        dealt: Whether questions are dealt out to workers as they are free, so that nobody knows which go together.
        device: What they are answered on, where that is known to be another machine's: `cuda`, `mps` or `cpu`.
    """

    model: str = option(
        "auto", "The class that loads a checkpoint.", "Evaluate", metavar="auto|FILE.py:CLASS|LIBRARY:CLASS"
    )
    engine: str = option(
        "transformers", "What generates answers: soup list engines.", "Evaluate", metavar="NAME|FILE.py:CLASS"
    )
    engine_args: Mapping[str, Any] = option(
        {}, "An argument of the engine. Repeatable.", "Evaluate", "pairs", flag="engine-arg", metavar="KEY=VALUE"
    )
    engine_url: str | None = option(
        None, "An endpoint that serves the model already, for --engine openai.", "Evaluate", metavar="URL"
    )
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
    trust_remote_code: bool = option(
        False, "Run code that comes with a checkpoint.", "Evaluate", "flag", flag="trust-code"
    )
    judge_url: str | None = option(
        None, "An endpoint that speaks OpenAI's chat completions, for grading.", "Evaluate", metavar="URL"
    )
    judge_model: str | None = option(
        None, "The model there; or, without a URL, a checkpoint of a language model.", "Evaluate", metavar="NAME|DIR"
    )
    judge_engine: str = option(
        "transformers", "What runs a judge that is a checkpoint.", "Evaluate", metavar="NAME|FILE.py:CLASS"
    )
    judge_engine_args: Mapping[str, Any] = option(
        {},
        "An argument of the judge's engine. Repeatable.",
        "Evaluate",
        "pairs",
        flag="judge-engine-arg",
        metavar="KEY=VALUE",
    )
    judge_requests: int = option(
        8, "Questions that the judge is asked at once.", "Evaluate", "count", metavar="N", minimum=1
    )
    judge_key_env: str = option(
        "OPENAI_API_KEY", "The environment variable that holds the endpoint's key.", "Evaluate", metavar="VARIABLE"
    )
    judge_images: bool = option(False, "Show the judge of an arena the question's pictures, too.", "Evaluate", "flag")
    judge_for: tuple[str, ...] = option(
        (),
        "Ask the judge for these benchmarks too, where matching finds no answer. Repeatable.",
        "Evaluate",
        "names",
        metavar="NAMES",
    )
    shots: int = option(
        0,
        "Answered questions before each question, of the same benchmark.",
        "Evaluate",
        "count",
        metavar="K",
        minimum=0,
    )
    dealt: bool = False
    device: str | None = None

    def without_judge(self) -> Self:
        """Return the same settings without a judge, for what is answered here and judged elsewhere."""
        defaults = {name: default for name, (default, _) in options_of(EvalSettings).items() if name in JUDGE_OPTIONS}
        return replace(self, **defaults)
