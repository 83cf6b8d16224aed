"""What of an answer is judged, and what the first ones show: thoughts in front of them, one text for all questions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

__all__ = ["SPLIT_VARIABLE", "answer_remarks", "final_answer", "splits_thoughts"]

SPLIT_VARIABLE = "SPLIT_THINK"  # VLMEvalKit's switch in the environment: on whatever it is set to
BEGIN, END = "<think>", "</think>"
FEWEST_ALIKE = 16
"""So many answers must be the same text for a remark: fewer may be chance."""


def splits_thoughts() -> bool:
    """Whether VLMEvalKit's switch is on, so that answers are judged without the thoughts in front of them."""
    return bool(os.environ.get(SPLIT_VARIABLE))


def final_answer(text: str) -> str:
    """Return what of an answer is judged, by VLMEvalKit's rule: all of it, or what follows the last `</think>`."""
    return text.rpartition(END)[2].strip() if splits_thoughts() and END in text else text


def answer_remarks(benchmark: str, answers: Sequence[str]) -> Iterator[str]:
    """Yield what is strange about a batch of answers, in words that are the same for each batch.

    Args:
        benchmark: Its name.
        answers: As the model gave them.
    """
    thinking = [text for text in answers if BEGIN in text or END in text]
    endless = [text for text in thinking if END not in text]
    if 2 * len(thinking) > len(answers) and not splits_thoughts():
        yield (
            f"{benchmark}: answers begin with {BEGIN}, and what is thought there is judged as if it were answered. Set "
            f"{SPLIT_VARIABLE}=True in the environment, VLMEvalKit's own switch, to judge what follows {END} alone."
        )
    if 2 * len(endless) > len(answers):
        yield f"{benchmark}: answers end within {BEGIN}, with nothing to judge: let the model generate more tokens."
    if len(answers) >= FEWEST_ALIKE and len(set(answers)) == 1:
        yield (
            f"{benchmark}: the model answers different questions with the same text: a broken chat template or a wrong "
            f"processor does so. It says {answers[0]!r:.80}."
        )
