"""What `soup arena` does before anybody votes: open the arena, have candidates answer, have a judge vote."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluators.arena.answers import Asking
from evaluators.arena.ballot import Ballot
from evaluators.arena.judge import judge_name, judge_of, missing_matches, reach, vote_by_judge
from evaluators.arena.record import FILE_NAME, Arena, QuestionWithMedia, no_candidate
from evaluators.arena.server import ArenaServer, arena_token
from evaluators.arena.votes import VoteLog, all_matches, read_votes
from soup.errors import EvaluatorError
from soup.evaluation.config import EvalConfig
from soup.evaluation.progress import Progress
from soup.evaluation.run_directory import Kind, refuse_other_kind
from soup.support.options import option_name
from soup.support.text import pluralize

__all__ = ["ArenaTask", "serving"]


@dataclass(frozen=True)
class ArenaTask:
    """Candidates, questions, and how both come together.

    Args:
        path: The arena's folder.
        questions: Each with its pictures; None: those that the arena has.
        locations: Checkpoints, or a folder of such; none: those that have answered before.
        config: How candidates are asked, and which judge votes.
        baseline: The candidate that others are compared with; None: the first.
        least: How many candidates there must be for what is done with the arena then.
    """

    path: Path
    questions: Sequence[QuestionWithMedia] | None
    locations: Sequence[str]
    config: EvalConfig
    baseline: str | None = None
    least: int = 1

    def plan(self) -> dict[str, object]:
        """Return what would be done, after the same checks and without a file written.

        Raises:
            SoupError: what `prepare` would raise before it asks anything.
        """
        with tempfile.TemporaryDirectory(prefix="soup-arena-") as folder:
            arena = self._open(self.path if (self.path / FILE_NAME).exists() else Path(folder), with_pictures=False)
            judge, unasked = judge_of(self.config.settings), self._unasked(arena)
            candidates = [*arena.members, *unasked]
            return {
                "schema": 1,
                "run": str(self.path),
                "questions": len(arena.questions),
                "candidates": candidates,
                "to_ask": unasked,
                "pairs_so_far": len(all_matches(arena)),
                "pairs_at_most": len(arena.questions) * math.comb(len(candidates), 2),
                "votes": len(read_votes(self.path / "votes.jsonl")),
                "judge": judge_name(judge, self.config.settings) if judge else None,
            }

    def prepare(self, progress: Progress, on_judged: Callable[[int, int], None]) -> Arena:
        """Have candidates answer, and the judge vote if there is one; what was done before is not done again.

        Args:
            progress: Who hears of answers.
            on_judged: Called with how many of how many pairs the judge has voted on.

        Raises:
            SoupError: a candidate or the judge can't be asked.
        """
        arena, settings = self._open(self.path), self.config.settings
        judge, unasked = judge_of(settings), self._unasked(arena)
        if judge is not None:
            log = VoteLog(arena.votes_path)
            if unasked or missing_matches(arena, log, judge_name(judge, settings)):
                reach(arena, judge)
        if self.locations:
            Asking(arena, self.locations, self.config).run(progress)
        if judge is not None:
            vote_by_judge(arena, log, judge, settings, on_judged)
        return arena

    def _unasked(self, arena: Arena) -> list[str]:
        """Return the candidates that have not answered yet, after all checks that need no answer."""
        names = Asking(arena, self.locations, self.config).check() if self.locations else []
        unasked = [name for name in names if name not in arena.members]
        candidates = [*arena.members, *unasked]
        if self.baseline is not None and self.baseline not in candidates:
            raise no_candidate(self.path, self.baseline, candidates)
        if 0 < len(candidates) < self.least:
            raise EvaluatorError(
                f"{self.path}: nothing to vote on: expected two candidates, found {candidates[0]} alone. Name another "
                f"checkpoint, or have it answer without a page ({option_name('report')})."
            )
        return unasked

    def _open(self, path: Path, *, with_pictures: bool = True) -> Arena:
        refuse_other_kind(self.path, Kind.ARENA)
        if self.questions is None:
            return Arena(path)
        return Arena.make(path, self.questions, with_pictures=with_pictures)


@contextmanager
def serving(arena: Arena, host: str, port: int) -> Iterator[ArenaServer]:
    """Give the server of an arena's page, for the time of a `with`.

    Raises:
        EvaluatorError: there is nothing to vote on, or it can't listen there.
        JournalError: the file of votes can't be read or written, or is damaged.
    """
    if not all_matches(arena):
        raise EvaluatorError(
            f"{arena.path}: nothing to vote on: expected two candidates that differ in an answer, found "
            f"{pluralize(len(arena.members), 'candidate')} on {pluralize(len(arena.questions), 'question')}. "
            f"soup arena CHECKPOINT ... {option_name('run_dir')} {arena.path} adds candidates."
        )
    ballot = Ballot(arena, VoteLog(arena.votes_path))
    with ArenaServer(ballot, arena_token(arena.path), host, port) as server:
        yield server
