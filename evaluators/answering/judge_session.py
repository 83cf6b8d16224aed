"""The LLM judge's replies about one candidate on one benchmark: kept as they come, a few asked at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from evaluators.answering.endpoint import map_at_once
from evaluators.answering.endpoint_judge import EndpointJudge
from evaluators.answering.llm_judge import VLMEVALKIT, LLMJudge, leave_out
from evaluators.answering.local_judge import LocalJudge
from evaluators.answering.response_cache import ResponseCache, response_key
from soup.errors import EvaluatorError
from soup.evaluation.dealing import Dealer
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name
from soup.support.text import pluralize, whole_characters

__all__ = ["JudgeSession", "RepliesOfOthers", "open_judge"]

T = TypeVar("T")


def open_judge(settings: EvalSettings, release: Callable[[], None], prompts: str = VLMEVALKIT) -> LLMJudge | None:
    """Return the judge that the settings name: a checkpoint of a language model, or an endpoint; None for none.

    Args:
        settings: They name it.
        release: Gives back what the candidates' engine holds, where a checkpoint does not fit beside it.
        prompts: Whose prompts it is asked with, for its identity.

    Raises:
        EvaluatorError: half of one is named, or it can't be asked.
    """
    model = settings.judge_model
    if model and not settings.judge_url and (Path(model) / "config.json").is_file():
        return LocalJudge(settings, release, prompts)
    judge = EndpointJudge.from_settings(settings, prompts)
    if settings.judge_engine != EvalSettings().judge_engine or settings.judge_engine_args:
        raise EvaluatorError(
            f"{option_name('judge_engine')}: runs a judge that is a checkpoint; {option_name('judge_model')} names "
            f"its directory, and {option_name('judge_url')} none."
        )
    return judge


class RepliesOfOthers:
    """What the judge replied about other candidates of the run: the same question is the same reply."""

    def __init__(self) -> None:
        self._caches: dict[Path, tuple[int, ResponseCache]] = {}  # by file, with its size when it was read

    def read(self, cache: ResponseCache) -> None:
        """Read what lies beside a candidate's own folder; files that have grown are read again."""
        for path in sorted(cache.path.parent.parent.glob(f"*/{cache.path.name}")):
            size = path.stat().st_size
            if path != cache.path and self._caches.get(path, (-1,))[0] != size:
                self._caches[path] = size, ResponseCache(path)

    def get(self, key: str) -> str | None:
        """Return the text of that key, if some candidate's file has it."""
        return next((text for _, cache in self._caches.values() if (text := cache.get(key)) is not None), None)


class JudgeSession:
    """The judging of one candidate on one benchmark. It is the `model` that VLMEvalKit's functions are given.

    Replies are kept by judge and prompt. Once the judge has stopped answering, nothing more is asked.

    Args:
        judge: Who is asked.
        cache: Where replies are looked up, and kept as they come.
        benchmark: Its name, for errors.
        max_tokens: How long a reply may become.
        others: What was replied about other candidates.
        dealer: Lets other evaluations go on while this one waits for the judge.
        otherwise: What may be done without the judge; by default the benchmark is left out.
        on_grades: Called with how many of how many questions the judge is done with, by one thread at a time.
    """

    def __init__(
        self,
        judge: LLMJudge,
        cache: ResponseCache,
        benchmark: str,
        max_tokens: int = 2048,
        others: RepliesOfOthers | None = None,
        dealer: Dealer | None = None,
        otherwise: str | None = None,
        on_grades: Callable[[int, int], None] = lambda count, total: None,
    ) -> None:
        self._judge = judge
        self._cache = cache
        self._benchmark = benchmark
        self._max_tokens = max_tokens
        self._others = others or RepliesOfOthers()
        self._others.read(cache)
        self._dealer = dealer
        self._otherwise = otherwise or leave_out(benchmark)
        self._on_grades = on_grades
        self._telling = threading.Lock()
        self._stopped = threading.Event()
        self._replies = 0
        self._used: set[str] = set()  # keys of replies

    def generate(
        self, prompt: str, temperature: float = 0, system: str = "", images: Sequence[str] = (), **_: object
    ) -> str:
        """Return the judge's reply, under the name by which VLMEvalKit asks for it.

        Args:
            prompt: What it is asked.
            temperature: For the endpoint.
            system: What it is told to be, before the prompt.
            images: Files that it is shown, named by their content.

        Raises:
            EvaluatorError: it did not come; says what is kept, and how to go on or leave the benchmark out.
        """
        facts = ["judge", dict(self._judge.identity()), prompt, temperature, self._max_tokens]
        pictures = [Path(image).name for image in images]
        key = response_key(*facts, *([system] if system else []), *([pictures] if pictures else []))
        self._used.add(key)
        if (reply := self._cache.get(key)) is not None:
            return reply
        if (reply := self._others.get(key)) is not None:
            self._cache.add({key: reply})
            return reply
        try:
            reply = whole_characters(
                self._judge.ask(prompt, temperature, self._max_tokens, self._stopped, system, images)
            )
        except EvaluatorError as reason:
            self._stopped.set()
            raise EvaluatorError(
                f"{self._benchmark}: the judge {self._judge.model} at {self._judge.address} stopped answering after "
                f"{pluralize(self._replies, 'reply')}: {reason}\nAll answers and judgements so far are kept: type the "
                f"same command again, and only the rest is asked; or {self._otherwise}."
            ) from None
        self._cache.add({key: reply})
        self._replies += 1
        return reply

    def map(self, function: Callable[[int], T], indices: Sequence[int]) -> list[T]:
        """Return the function's value for each index, in their order, by a few threads; the first error ends it."""
        done = 0

        def grade(index: int) -> T:
            nonlocal done
            value = function(index)
            with self._telling:
                done += 1
                self._on_grades(done, len(indices))
            return value

        def ask() -> list[T]:
            return map_at_once(grade, indices, self._judge.requests, self._stopped)

        return ask() if self._dealer is None else self._dealer.aside(ask)

    def refuse_unread(self, unread: Sequence[str], count: int) -> None:
        """Refuse a judge whose replies can't be read: VLMEvalKit would count those as wrong, an arena as ties.

        A few such replies are a judge's slip and count so. More than one in twenty are a judge that does not do its
        work: none of its replies here is kept, so that a judge that was mended is asked again.

        Args:
            unread: The replies that can't be read, or logs of them.
            count: The number of all questions.

        Raises:
            EvaluatorError: there are too many.
        """
        if len(unread) > max(1, count // 20):
            self._cache.forget(self._used)
            raise EvaluatorError(
                f"{self._benchmark}: the judge {self._judge.model} at {self._judge.address} gave no reply that "
                f"can be read for {len(unread)} of {pluralize(count, 'question')}, e.g. {unread[0]!r:.200}. Its "
                f"replies are not kept: mend it and type the same command again, choose another judge, or "
                f"{self._otherwise}."
            )
