"""An LLM judge: a language model that grades answers, behind an endpoint or in an engine of its own.

What is asked and how a reply is read are the harness's: VLMEvalKit's own functions, or an arena's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from soup.support.options import option_name

__all__ = ["VLMEVALKIT", "LLMJudge", "leave_out"]

VLMEVALKIT = "VLMEvalKit's"
"""Whose prompts a judge is asked with, where nobody says otherwise."""


def leave_out(benchmark: str) -> str:
    """Return what may be done where a judge fails."""
    return f"leave {benchmark} out of {option_name('eval')}"


class LLMJudge(Protocol):
    """A language model that grades answers.

    Attributes:
        model: Its name, for people.
        address: Where it is: a URL, or a directory.
        requests: How many are under way at once.
        logs: Where an engine of its own writes what it prints; whoever evaluates sets it.
    """

    model: str
    address: str
    requests: int
    logs: Path

    def identity(self) -> Mapping[str, object]:
        """Return what a grade depends on, as JSON values."""

    def ask(
        self,
        prompt: str,
        temperature: float,
        max_tokens: int,
        stopped: threading.Event | None = None,
        system: str = "",
        images: Sequence[str] = (),
    ) -> str:
        """Return the judge's reply to a prompt; several threads may ask at once.

        Args:
            prompt: The text.
            temperature: Of the decoding; a judge that decodes greedily has no use for it.
            max_tokens: How long the reply may become.
            stopped: Set by others to cut the pauses between attempts short.
            system: What the judge is told to be, before the prompt.
            images: Files of pictures that it is shown before the text.

        Raises:
            EvaluatorError: no reply came; says why.
        """

    def make_room(self) -> None:
        """Give memory back before a candidate is loaded, where both do not fit."""

    def check_reachable(self, benchmark: str, otherwise: str | None = None) -> None:
        """Make sure that the judge answers, before hours of work for a benchmark that needs it.

        Args:
            benchmark: Its name, for the error.
            otherwise: What may be done without a judge; by default the benchmark is left out.

        Raises:
            EvaluatorError: it does not.
        """
