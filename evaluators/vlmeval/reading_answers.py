"""What of an answer is judged, and what the first ones show: thoughts in front of them, one text for all questions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

__all__ = ["SPLIT_VARIABLE", "AnswerRemarks", "final_answer", "splits_thoughts"]

SPLIT_VARIABLE = "SPLIT_THINK"  # VLMEvalKit's switch in the environment: on whatever it is set to
BEGIN, END = "<think>", "</think>"
FEWEST = 16
"""So many answers must be known for a remark: what fewer have in common may be chance."""


def splits_thoughts() -> bool:
    """Whether VLMEvalKit's switch is on, so that answers are judged without the thoughts in front of them."""
    return bool(os.environ.get(SPLIT_VARIABLE))


def final_answer(text: str) -> str:
    """Return what of an answer is judged, by VLMEvalKit's rule: all of it, or what follows the last `</think>`."""
    return text.rpartition(END)[2].strip() if splits_thoughts() and END in text else text


class AnswerRemarks:
    """What is strange about the answers of an evaluation so far, however many come at a time; each is told once.

    Args:
        benchmark: Its name.
        count: How many answers will come.
    """

    def __init__(self, benchmark: str, count: int) -> None:
        self._benchmark, self._fewest = benchmark, min(FEWEST, count)
        self._heard = self._thinking = self._endless = self._empty = 0
        self._texts: set[str] = set()  # two at most: what matters is whether there is more than one
        self._told: set[str] = set()

    def hear(self, answers: Sequence[str]) -> list[str]:
        """Return what can be said now that some more answers are known, as the model gave them."""
        for text in answers:
            thinks = BEGIN in text or END in text
            self._heard += 1
            self._thinking += thinks
            self._endless += thinks and END not in text
            self._empty += not text.strip()
            if len(self._texts) < 2:
                self._texts.add(text)
        remarks = [text for text in self._remarks() if text not in self._told]
        self._told.update(remarks)
        return remarks

    def _remarks(self) -> Iterator[str]:
        name, half = self._benchmark, self._heard / 2
        if self._heard < self._fewest:
            return
        if self._thinking > half and not splits_thoughts():
            yield (
                f"{name}: answers begin with {BEGIN}, and what is thought there is judged as if it were answered. Set "
                f"{SPLIT_VARIABLE}=True in the environment, VLMEvalKit's own switch, to judge what follows {END} alone."
            )
        if self._endless > half:
            yield f"{name}: answers end within {BEGIN}, with nothing to judge: let the model generate more tokens."
        if self._heard < FEWEST:
            return
        if self._empty > half:
            yield (
                f"{name}: most answers are empty. A broken chat template does so; and a model that is cut off while it "
                "thinks, where a server leaves its thoughts out: let it generate more tokens."
            )
        elif len(self._texts) == 1:
            yield (
                f"{name}: the model answers different questions with the same text: a broken chat template or a wrong "
                f"processor does so. It says {next(iter(self._texts))!r:.80}."
            )
