"""`arena:RUN[@BASELINE]`: how often a candidate's answers are preferred to the baseline's: 0 to 100, 50 is as good.

With an LLM judge (`--judge-model`) any soup is answered, and judged against the baseline's answers. Without one
people's votes decide: those on the very answers that the candidate gives, whoever gave them when they were voted on.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from evaluators.answering.judge_session import JudgeSession, RepliesOfOthers
from evaluators.answering.llm_judge import LLMJudge
from evaluators.answering.response_cache import ResponseCache
from evaluators.arena.answers import Answers, kept_answers
from evaluators.arena.comparisons import comparisons
from evaluators.arena.judge import MAX_TOKENS, compare, judge_of
from evaluators.arena.record import Arena, Member, text_key
from evaluators.arena.votes import POINTS, Vote, read_votes
from soup.errors import EvaluatorError
from soup.evaluation.api import AskedModel, Benchmark, Candidate, Location, Score, ShownQuestion
from soup.evaluation.dealing import dealer_of
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name
from soup.support.text import pluralize

__all__ = ["Preference"]

THIS = "this candidate"


class Preference(Answers):
    """Scores candidates by how often their answers are preferred to those of an arena's baseline.

    Raises:
        EvaluatorError: the engine that `settings.model` names is not there, or half of a judge is named.
    """

    target_hint = "RUN[@BASELINE]"
    has_parts = False
    ranks = True

    def __init__(self, settings: EvalSettings) -> None:
        super().__init__(settings)
        self._judge = judge_of(settings, self.engine.close)
        self._was_reached = False
        self._votes: dict[str, list[Vote]] = {}
        self._replies = RepliesOfOthers()

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the questions, the baseline's answers, who votes, and how the engine answers."""
        arena, baseline = self.arena(benchmark), self._baseline(benchmark)
        self.questions(benchmark)
        if self._judge is not None:
            voters: Mapping[str, object] = {"judge": dict(self._judge.identity())}
        else:
            votes = sorted(json.dumps(vars(vote)) for vote in self._people(benchmark))
            others = {name: sorted(member.keys.items()) for name, member in arena.members.items()}
            facts = json.dumps([votes, others], sort_keys=True)
            voters = {"people": hashlib.sha256(facts.encode()).hexdigest()}
        return {
            "evaluator": "arena",
            "version": 1,
            "data": arena.digest,
            "baseline": hashlib.sha256(json.dumps(sorted(baseline.answers.items())).encode()).hexdigest(),
            "voters": voters,
            "answering": dict(self.engine.identity()),
        }

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Have the candidate answer, and return how often it is preferred to the baseline."""
        if self._judge is not None:
            self._reach(benchmark)
            self._judge.make_room()
        answers = self.ask(candidate, benchmark)
        if self._judge is None:
            return self._by_people(candidate, benchmark, answers)
        return self._by_judge(candidate, benchmark, answers, self._judge)

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Have the engine look at the checkpoint's files, and reach the judge."""
        self._reach(benchmark)
        super().check(benchmark, checkpoint)

    def asks_some(self, benchmark: Benchmark) -> bool:
        """Say whether the score is the mean of the questions' points: by a judge it is."""
        return self._judge is not None

    def show(
        self, benchmark: Benchmark, indices: Sequence[str], models: Sequence[AskedModel]
    ) -> Mapping[str, ShownQuestion]:
        """Return questions with their pictures and what models answered.

        Raises:
            EvaluatorError: the arena is gone, or of other questions than the models were asked.
        """
        arena = self.arena(benchmark)
        if any(model.identity.get("data") != arena.digest for model in models):
            raise EvaluatorError(f"{benchmark.name}: is not the arena whose questions the models were asked.")
        questions = [arena.questions[index] for index in indices]
        answers = [kept_answers(arena, questions, m.digest, m.kept, m.identity.get("answering")) for m in models]
        return {
            question.index: ShownQuestion(
                question.text,
                tuple(path.read_bytes() for path in arena.pictures(question)),
                tuple(texts[position] for texts in answers),
            )
            for position, question in enumerate(questions)
        }

    def locate(self, benchmark: Benchmark) -> Location:
        """Return the arena's folder."""
        return Location(self.path_of(benchmark))

    def path_of(self, benchmark: Benchmark) -> Path:
        """Return the arena's folder, the target without its baseline."""
        return _target(benchmark)[0]

    def _baseline(self, benchmark: Benchmark) -> Member:
        arena = self.arena(benchmark)
        return arena.members[arena.baseline(_target(benchmark)[1])]

    def _people(self, benchmark: Benchmark) -> list[Vote]:
        """Return people's votes as they were when they were first asked for: a search must not see them change."""
        arena = self.arena(benchmark)
        votes = self._votes.setdefault(str(arena.path), read_votes(arena.votes_path))
        return [vote for vote in votes if vote.by == "person"]

    def _reach(self, benchmark: Benchmark) -> None:
        if self._judge is not None and not self._was_reached:
            self._judge.check_reachable(benchmark.name)
            self._was_reached = True

    def _by_judge(
        self, candidate: Candidate, benchmark: Benchmark, answers: Mapping[str, str], judge: LLMJudge
    ) -> Score:
        arena, baseline = self.arena(benchmark), self._baseline(benchmark)
        judge.logs = candidate.logs
        if baseline.answering != self.engine.identity():
            candidate.remark(f"{benchmark.name}: {baseline.name} answered by another engine, or other settings of it.")
        cache = ResponseCache(candidate.kept / "arena-judge.jsonl")
        on_grades = partial(candidate.answered, what="grades")
        facts = (cache, benchmark.name, MAX_TOKENS, self._replies, dealer_of(candidate))
        session = JudgeSession(judge, *facts, on_grades=on_grades)
        differ = [index for index, text in answers.items() if text_key(text) != baseline.keys[index]]
        unread: list[str] = []

        def points_of(position: int) -> float:
            question = arena.questions[differ[position]]
            shown = [str(path) for path in arena.pictures(question)] if self.settings.judge_images else []
            index = question.index
            choice, _ = compare(session, question, answers[index], baseline.answers[index], shown, unread)
            return POINTS[choice]

        judged = dict(zip(differ, session.map(points_of, range(len(differ))), strict=True))
        session.refuse_unread(unread, 2 * len(differ))
        points = {index: judged.get(index, 0.5) for index in answers}
        return Score(100 * sum(points.values()) / len(points), len(points), points)

    def _by_people(self, candidate: Candidate, benchmark: Benchmark, answers: Mapping[str, str]) -> Score:
        from scipy.special import expit  # listing benchmarks needs none of it

        from evaluators.arena.ratings import fit

        arena, baseline = self.arena(benchmark), self._baseline(benchmark)
        this = Member(THIS, candidate.digest, {}, answers)
        if all(this.keys[index] == baseline.keys[index] for index in answers):
            return Score(50.0, len(answers))
        name = next((m.name for m in arena.members.values() if all(m.keys[i] == this.keys[i] for i in answers)), THIS)
        rows = comparisons(_with(arena, this) if name == THIS else arena, self._people(benchmark), answers)
        candidate_rows = [row for row in rows if name in (row.first, row.second)]
        if not (votes := sum(row.is_voted for row in candidate_rows)):
            raise EvaluatorError(_no_votes(candidate, benchmark, arena, baseline, this))
        names = [*arena.members, *([THIS] if name == THIS else [])]
        fitted = fit(rows, names, baseline.name)
        interval = fitted.difference(name)
        low, high = (100 * float(expit(end)) for end in (interval.low, interval.high))
        value = 100 * fitted.preferred(name)
        shown, joined = "+".join(candidate.names), ", with virtual ties" if fitted.is_joined else ""
        candidate.remark(
            f"{benchmark.name}: {shown}: {value:.1f} [{low:.1f}, {high:.1f}] by {pluralize(votes, 'vote')}{joined}."
        )
        return Score(value, len(answers))


def _target(benchmark: Benchmark) -> tuple[Path, str | None]:
    """Return the arena's folder, and the baseline where one is named; a folder's own name may hold an @."""
    path, at, baseline = benchmark.target.rpartition("@")
    if not at or Path(benchmark.target).exists():
        return Path(benchmark.target), None
    return Path(path), baseline


def _with(arena: Arena, member: Member) -> Arena:
    joined = copy.copy(arena)
    joined.members = {**arena.members, member.name: member}
    return joined


def _no_votes(candidate: Candidate, benchmark: Benchmark, arena: Arena, baseline: Member, this: Member) -> str:
    differ = sum(this.keys[index] != baseline.keys[index] for index in this.answers)
    shown = "+".join(candidate.names)
    checkpoint = (
        shown if len(candidate.names) == 1 else f"{shown} (as a checkpoint: soup average or soup merge writes it)"
    )
    return (
        f"{benchmark.name}: nobody has voted on the answers of {shown}, which differ from those of {baseline.name} on "
        f"{differ} of {pluralize(len(this.answers), 'question')}. Have people vote: soup arena CHECKPOINT "
        f"{option_name('run_dir')} {arena.path}, for {checkpoint}; then type the same command. Or name a judge "
        f"({option_name('judge_model')}, {option_name('judge_url')}), who votes on any candidate."
    )
