"""An LLM judge compares two answers, each pair in both orders: what it says in one order alone is a tie.

Source: Zheng et al., arXiv 2306.05685, section 3.4 (position bias, and swapping positions).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from evaluators.answering.judge_session import JudgeSession, open_judge
from evaluators.answering.llm_judge import LLMJudge
from evaluators.answering.response_cache import ResponseCache
from evaluators.arena.record import Arena, Question
from evaluators.arena.votes import Choice, Match, Vote, VoteLog, all_matches
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

__all__ = ["PROMPTS", "Verdict", "compare", "judge_name", "judge_of", "missing_matches", "reach", "vote_by_judge"]

PROMPTS = "soup's arena, 1"
"""Moves on when a judge is asked in other words."""
MAX_TOKENS = 512
PROMPT = """Two answers to one question are to be compared{pictures}.

[Question]
{question}

[Answer 1]
{first}

[Answer 2]
{second}

Which answer would a careful person prefer? What is right comes first, then what helps and is clear. The order of the \
answers says nothing, and a longer one is not better for its length. Think as briefly as you like; then write as the \
last line nothing but 1, 2, or tie."""
VERDICT = re.compile(r"\W*(?:answer\W*)?(1|2|tie)\W*", re.IGNORECASE)

Verdict = tuple[Choice, tuple[str, str]]
"""The better side, and what was said with the left answer first, and with the right one first; `unread`: nothing."""


def judge_of(settings: EvalSettings, release: Callable[[], None] = lambda: None) -> LLMJudge | None:
    """Return the judge that settings name, for comparisons; None where they name none."""
    return open_judge(settings, release, f"{PROMPTS}, with pictures" if settings.judge_images else PROMPTS)


def judge_name(judge: LLMJudge, settings: EvalSettings) -> str:
    """Return what the judge is called as a voter."""
    return f"{judge.model} with pictures" if settings.judge_images else judge.model


def compare(
    session: JudgeSession, question: Question, left: str, right: str, images: Sequence[str], unread: list[str]
) -> Verdict:
    """Ask a judge about two answers, in both orders.

    Args:
        session: The judge, and what it has said before.
        question: What both answer.
        left: An answer.
        right: Another.
        images: Files of pictures that it is shown.
        unread: Replies that can't be read are added to it.
    """
    straight = _verdict(session, question, left, right, images, unread)
    turned = _verdict(session, question, right, left, images, unread)
    first = {"1": "left", "2": "right"}.get(straight, straight)
    second = {"1": "right", "2": "left"}.get(turned, turned)
    orders = (first, second)
    if orders == ("left", "left"):
        return "left", orders
    return ("right" if orders == ("right", "right") else "tie"), orders


def reach(arena: Arena, judge: LLMJudge) -> None:
    """Make sure that a judge answers, before candidates are asked for its sake.

    Raises:
        EvaluatorError: it does not.
    """
    judge.check_reachable(str(arena.path), _without_judge())


def _without_judge() -> str:
    return f"leave {option_name('judge_model')} out, and people vote alone"


def missing_matches(arena: Arena, log: VoteLog, voter: str) -> list[Match]:
    """Return the pairs that a judge has not voted on."""
    return [match for match in all_matches(arena) if not log.has_judged(voter, match)]


def vote_by_judge(
    arena: Arena,
    log: VoteLog,
    judge: LLMJudge,
    settings: EvalSettings,
    on_progress: Callable[[int, int], None],
) -> int:
    """Have a judge vote on all pairs that it has not voted on; return how many those were.

    Args:
        arena: Questions and answers.
        log: Where its votes are kept.
        judge: Who votes.
        settings: Whether it is shown the pictures (`judge_images`).
        on_progress: Called after each pair with how many of how many the judge has voted on.

    Raises:
        EvaluatorError: it stopped answering, or its replies can't be read. Votes so far are kept.
    """
    voter = judge_name(judge, settings)
    matches, known = missing_matches(arena, log, voter), len(all_matches(arena))
    cache = ResponseCache(arena.path / "answers" / "judge.jsonl")
    session = JudgeSession(judge, cache, str(arena.path), MAX_TOKENS, otherwise=_without_judge())
    texts = {
        (index, member.keys[index]): text for member in arena.members.values() for index, text in member.answers.items()
    }
    unread: list[str] = []
    done = known - len(matches)

    def vote(position: int) -> None:
        nonlocal done
        match = matches[position]
        question = arena.questions[match.question]
        images = [str(path) for path in arena.pictures(question)] if settings.judge_images else []
        left, right = texts[match.question, match.first], texts[match.question, match.second]
        choice, orders = compare(session, question, left, right, images, unread)
        session.refuse_unread(unread, 2 * len(matches))
        log.add(Vote(voter, "judge", match.question, match.first, match.second, choice, orders=orders))
        done += 1
        on_progress(done, known)

    judge.logs = RunDirectory(arena.path).logs
    if matches:
        session.map(vote, range(len(matches)))
    return len(matches)


def _verdict(
    session: JudgeSession, question: Question, first: str, second: str, images: Sequence[str], unread: list[str]
) -> str:
    counts = {"picture": len(question.images), "video": len(question.videos)}
    media = " and ".join(f"{kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count)
    pictures = f", both about the {media}" if media else ""
    shown = [text.strip() or "(no answer)" for text in (first, second)]
    prompt = PROMPT.format(pictures=pictures, question=question.text, first=shown[0], second=shown[1])
    reply = session.generate(prompt, images=images)
    lines = reply.strip().splitlines()
    if read := VERDICT.fullmatch(lines[-1]) if lines else None:
        return read[1].lower()
    unread.append(reply)
    return "unread"
