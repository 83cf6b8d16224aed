"""Check that an engine keeps its contract; and a fake one, for the tests of whatever calls engines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, Engine, OnBatch, Prompt
from soup.evaluation.settings import EvalSettings

__all__ = ["FakeEngine", "check_engine"]

HEARING_SECONDS = 0.001  # long enough for another thread to call meanwhile


def check_engine(
    factory: Callable[[EvalSettings], Engine],
    candidates: Sequence[Candidate],
    prompts: Sequence[Prompt],
    *,
    settings: EvalSettings | None = None,
    failing: Candidate | None = None,
) -> None:
    """Check that an engine keeps the contract of `soup.evaluation.api.Engine`.

    Its identity must be a mapping of JSON values and stay the same. Each prompt must get one text, whatever its
    neighbours and their order, and stay as it was; one thread at a time tells of answers. After a swap answers must be
    those of an engine that was opened on the candidate, and be the first ones again when the first candidate comes
    back. It must open again after it was closed, after a swap that failed, and at once after an `open` that failed.

    Args:
        factory: What the entry point names: makes an engine from settings.
        candidates: Two at least, which differ in their weights alone, and answer some prompt differently.
        prompts: Several, of different lengths.
        settings: The settings (default: `EvalSettings()`).
        failing: A candidate that can't be put in: it must raise, and never be answered for.

    Raises:
        AssertionError: The engine breaks the contract.
    """
    settings = settings or EvalSettings()
    engine = factory(settings)
    assert isinstance(engine, Engine), f"{factory}: a member of soup.evaluation.api.Engine is missing"
    identity = _identity(engine)
    assert _identity(factory(settings)) == identity, "two engines of the same settings have two identities"
    engine.close()  # nothing is open
    try:
        fresh = [_opened(engine, candidate, prompts) for candidate in candidates]
        assert len({*map(tuple, fresh)}) > 1, "all candidates answered alike: choose others, or other prompts"
        _check_order(engine, candidates[-1], prompts, fresh[-1])
        for candidate, expected in [*zip(candidates, fresh, strict=True), (candidates[0], fresh[0])]:
            engine.swap(candidate)
            assert _answers(engine, prompts) == expected, "other answers after a swap than after opening"
        if failing is not None:
            _check_failure(engine, failing)
            _open_at_once(engine, candidates[0])
            assert _answers(engine, prompts) == fresh[0], "other answers after a swap that failed"
        assert _identity(engine) == identity, "answering changed the identity"
    finally:
        engine.close()


def _identity(engine: Engine) -> str:
    identity = engine.identity()
    assert isinstance(identity, Mapping), f"the identity is no mapping: {identity!r}"
    assert identity, "the identity is empty: it names the engine at least"
    try:
        text = json.dumps(dict(identity), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as reason:
        raise AssertionError(f"the identity is not made of JSON values: {identity!r}: {reason}") from None
    assert json.loads(text) == identity, f"the identity does not come back from JSON as it was: {identity!r}"
    return text


def _opened(engine: Engine, candidate: Candidate, prompts: Sequence[Prompt]) -> list[str]:
    engine.close()
    engine.check(candidate.template)
    engine.open(candidate)
    return _answers(engine, prompts)


def _answers(engine: Engine, prompts: Sequence[Prompt]) -> list[str]:
    """Return the answers; `on_batch` must have heard the same of every prompt, once."""
    heard: list[tuple[int, str]] = []
    copies = [list(prompt) for prompt in prompts]
    index_of = {id(prompt): index for index, prompt in enumerate(copies)}
    asked, before, turn, together = [*copies], deepcopy(copies), threading.Lock(), []

    def hear(batch: list[Prompt], replies: list[str]) -> None:
        if not turn.acquire(blocking=False):
            together.append(batch)
            return
        heard.extend((index_of.get(id(prompt), -1), reply) for prompt, reply in zip(batch, replies, strict=True))
        time.sleep(HEARING_SECONDS)
        turn.release()

    answers = engine.answer(copies, hear)
    assert isinstance(answers, list), f"answers that are no list: {answers!r:.200}"
    assert asked == before, "the prompts were changed"
    assert not together, "on_batch was called from several threads at the same time"
    assert all(index >= 0 for index, _ in heard), "on_batch was told of other prompts than it was given: of copies?"
    assert len(answers) == len(prompts), f"{len(answers)} answers to {len(prompts)} prompts"
    assert all(isinstance(answer, str) for answer in answers), f"an answer that is no text: {answers!r:.200}"
    assert sorted(heard) == list(enumerate(answers)), "on_batch did not hear of every prompt once, with its answer"
    return answers


def _check_order(engine: Engine, held: Candidate, prompts: Sequence[Prompt], expected: list[str]) -> None:
    """Check the answers of what is held against those to the prompts in reverse, and to each alone."""
    assert _answers(engine, prompts[::-1])[::-1] == expected, "answers depend on the order of the prompts"
    alone = [_answers(engine, [prompt])[0] for prompt in prompts]
    assert alone == expected, "answers depend on what is asked at the same time"


def _check_failure(engine: Engine, failing: Candidate) -> None:
    """Check that a candidate is taken by neither way; in the end nothing must be open, without a `close`."""
    for put_in in (engine.swap, engine.open):
        try:
            put_in(failing)
        except Exception as error:
            reason = str(error)
        else:
            raise AssertionError(f"the failing candidate was taken by {put_in.__name__}()")
        assert reason.strip(), "an error that says nothing"
        if put_in.__name__ == "swap":
            engine.close()


def _open_at_once(engine: Engine, candidate: Candidate) -> None:
    try:
        engine.open(candidate)
    except Exception as error:
        raise AssertionError(f"open() failed before, and left something open: {error}") from error


@dataclass
class FakeEngine:
    """An `Engine` without a model: it says which candidate answers what, and notes all that is done with it.

    It remembers answers, as engines remember what they computed of a prompt, and forgets them at every swap; one that
    does not (`resets=False`) answers for the candidate before.

    Args:
        settings: Not looked at.
        fails: What raises, once for each time that it stands here: `open`, `swap`, `answer`, or `swap DIGEST`.
        resets: Whether a swap forgets what was remembered.
        calls: What was done, in order: `open DIGEST`, `swap DIGEST`, `answer COUNT`, `close`.
    """

    settings: EvalSettings | None = None
    fails: list[str] = field(default_factory=list)
    resets: bool = True
    calls: list[str] = field(default_factory=list)
    _digest: str | None = None
    _remembered: dict[str, str] = field(default_factory=dict)

    def identity(self) -> Mapping[str, object]:
        """Return a name."""
        return {"engine": "fake"}

    def check(self, checkpoint: Path) -> None:
        """Look at nothing."""

    def open(self, candidate: Candidate) -> None:
        """Take a candidate."""
        assert self._digest is None, "it is open already"
        self._note("open", candidate.digest)
        self._digest = candidate.digest

    def swap(self, candidate: Candidate) -> None:
        """Take another candidate."""
        assert self._digest is not None, "nothing is open"
        self._digest = "nobody"
        self._note("swap", candidate.digest)
        self._digest = candidate.digest
        if self.resets:
            self._remembered.clear()

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Say the candidate's digest, and the prompt's texts."""
        assert self._digest is not None, "nothing is open"
        self._note("answer", len(prompts))
        answers = []
        for prompt in prompts:
            text = " ".join(part["value"] for part in prompt)
            answers.append(self._remembered.setdefault(text, f"{self._digest}: {text}"))
            on_batch([prompt], answers[-1:])
        return answers

    def close(self) -> None:
        """Forget all."""
        if self._digest is not None:
            self.calls.append("close")
            self._digest = None
            self._remembered.clear()

    def _note(self, what: str, of: object) -> None:
        self.calls.append(f"{what} {of}")
        for name in {what, self.calls[-1]}.intersection(self.fails):
            self.fails.remove(name)
            raise EvaluatorError(f"{name}: fails, as it was told to")
