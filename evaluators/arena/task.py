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
from evaluators.arena.judge import judge_name, judge_of, vote_by_judge
from evaluators.arena.record import FILE_NAME, Arena, Pictures, Question
from evaluators.arena.server import ArenaServer, arena_token
from evaluators.arena.votes import VoteLog, all_matches, read_votes
from soup.errors import EvaluatorError, OutputError
from soup.evaluation.config import EvalConfig
from soup.evaluation.progress import Progress
from soup.evaluation.run_directory import RunDirectory
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
    """

    path: Path
    questions: Sequence[tuple[Question, Pictures]] | None
    locations: Sequence[str]
    config: EvalConfig

    def plan(self) -> dict[str, object]:
        """Return what would be done, after the same checks and without a file written.

        Raises:
            SoupError: what `prepare` would raise before it asks anything.
        """
        with tempfile.TemporaryDirectory(prefix="soup-arena-") as folder:
            arena = self._open(self.path if (self.path / FILE_NAME).exists() else Path(folder), with_pictures=False)
            names = Asking(arena, self.locations, self.config).check() if self.locations else []
            judge = judge_of(self.config.settings)
            candidates = [*arena.members, *(name for name in names if name not in arena.members)]
            return {
                "schema": 1,
                "run": str(self.path),
                "questions": len(arena.questions),
                "candidates": candidates,
                "to_ask": [name for name in names if name not in arena.members],
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
        arena = self._open(self.path)
        judge = judge_of(self.config.settings)
        if self.locations:
            Asking(arena, self.locations, self.config).run(progress)
        if judge is not None:
            with VoteLog(arena.votes_path) as log:
                vote_by_judge(arena, log, judge, self.config.settings, on_judged)
        return arena

    def _open(self, path: Path, *, with_pictures: bool = True) -> Arena:
        if self.questions is None:
            return Arena(path)
        if not (self.path / FILE_NAME).exists() and (journal := RunDirectory(self.path).journal).exists():
            raise OutputError(  # whose report would be hidden behind the arena's
                f"{self.path}: expected an arena or a new folder, found the run of a search ({journal.name}). "
                f"Choose another {option_name('run_dir')}."
            )
        return Arena.make(path, self.questions, with_pictures=with_pictures)


@contextmanager
def serving(arena: Arena, host: str, port: int) -> Iterator[ArenaServer]:
    """Give the server of an arena's page, for the time of a `with`; nobody else adds votes meanwhile.

    Raises:
        EvaluatorError: there is nothing to vote on, or it can't listen there.
        JournalError: somebody else serves the arena.
    """
    if not all_matches(arena):
        raise EvaluatorError(
            f"{arena.path}: nothing to vote on: expected two candidates that differ in an answer, found "
            f"{pluralize(len(arena.members), 'candidate')} on {pluralize(len(arena.questions), 'question')}. "
            f"soup arena CHECKPOINT ... {option_name('run_dir')} {arena.path} adds candidates."
        )
    with (
        VoteLog(arena.votes_path) as log,
        ArenaServer(Ballot(arena, log), arena_token(arena.path), host, port) as server,
    ):
        yield server
