"""An arena on disk: questions with their pictures, and what candidates answered. No checkpoint is needed to look at it.

RUN/arena.json        the questions, and the seed of sides and orders; never written anew
RUN/images/           their pictures, videos that browsers play, and videos' frames, by content
RUN/candidates/       each candidate's answers, in the order in which they came
RUN/votes.jsonl       every vote, one line each
RUN/token             what stands in the link of the page
RUN/journal.jsonl, answers/, digests.json, logs/   of asking the candidates, as of any run
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from soup.errors import EvaluatorError, JournalError
from soup.evaluation.api import Prompt
from soup.support.atomic_files import write_atomic
from soup.support.json_text import check_kinds, read_json
from soup.support.options import option_name
from soup.support.text import did_you_mean

__all__ = ["FILE_NAME", "Arena", "Member", "Question", "QuestionWithMedia", "no_candidate", "text_key"]

FILE_NAME = "arena.json"
MOST_BYTES = 1_000_000_000
"""Of answers: some ten thousand long ones are more than other files of JSON ever hold."""
MEMBER = re.compile(r"[0-9]{1,9}-")
PICTURE = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8})?")
VIDEO = re.compile(r"[0-9a-f]{64}-[0-9]{1,5}(\.[a-z0-9]{1,8})?")
NAMES = {"image": PICTURE, "video": VIDEO}

Pictures = Mapping[str, Callable[[], bytes]]
"""What reads each picture of a question, and each video that browsers may play, by its name."""
Frames = Mapping[str, Callable[[], Sequence[bytes]]]
"""What decodes the frames of each video of a question that are shown, as PNGs, by the video's name."""
QuestionWithMedia = tuple["Question", Pictures, Frames]
"""A question, and what is seen of it."""


def no_candidate(path: Path, name: str, known: Iterable[str]) -> EvaluatorError:
    """Return the error that an arena has no candidate of that name."""
    return EvaluatorError(f"{path}: no candidate '{name}'.{did_you_mean(name, known)}")


def text_key(text: str) -> str:
    """Return what an answer is known by: votes are on texts, whoever gave them."""
    return hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Question:
    """A question, in parts as `soup.evaluation.api.Prompt` has them; a picture is the name of its file.

    Args:
        index: Its name.
        parts: Texts, pictures and videos in their order. A video's name says its content and how many frames are shown,
            and has a suffix where a browser may play it.
    """

    index: str
    parts: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """What is asked, without the pictures."""
        return "\n".join(value for kind, value in self.parts if kind == "text")

    @property
    def images(self) -> tuple[str, ...]:
        """The names of its pictures' files."""
        return tuple(value for kind, value in self.parts if kind == "image")

    @property
    def videos(self) -> tuple[str, ...]:
        """The names of its videos."""
        return tuple(value for kind, value in self.parts if kind == "video")


@dataclass(frozen=True)
class Member:
    """A candidate with its answers.

    Args:
        name: What tables call it.
        recipe: The digest of its recipe.
        answering: What its answers depended on besides.
        answers: By question.
    """

    name: str
    recipe: str
    answering: Mapping[str, object]
    answers: Mapping[str, str]

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """The key of each answer, by question."""
        return {index: text_key(answer) for index, answer in self.answers.items()}


class Arena:
    """An arena, read from its folder.

    Raises:
        EvaluatorError: there is none.
        JournalError: a file of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / FILE_NAME).is_file():
            raise EvaluatorError(
                f"{path}: no arena. soup arena CHECKPOINT ... {option_name('prompts')} FILE makes one; by default it "
                "lies beside the file, FILE.arena."
            )
        document = _read(path / FILE_NAME, {"schema": int, "seed": str, "questions": list})
        self.seed = str(document["seed"])
        self.frames = self._frames(document.get("frames", {}))
        questions = cast("list[Mapping[str, object]]", document["questions"])
        self.questions = {question.index: question for question in map(self._question, questions)}
        self.members: dict[str, Member] = {}
        self._files: dict[str, Path] = {}
        self._stamps: tuple[object, ...] | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Read the candidates again if other processes have written some; return whether they have.

        Raises:
            JournalError: a file is damaged; then the candidates are those of before.
        """
        files = [file for file in (self.path / "candidates").glob("*.json") if MEMBER.match(file.name)]
        files.sort(key=lambda file: (_number(file), file.name))  # two that joined at once
        stamps = tuple((file.name, *_stamp(file)) for file in files)
        if stamps == self._stamps:
            return False
        members = [self._member(file) for file in files]
        self.members = {member.name: member for member in members}
        self._files = {member.name: file for member, file in zip(members, files, strict=True)}
        self._stamps = stamps
        return True

    @classmethod
    def make(cls, path: Path, questions: Iterable[QuestionWithMedia], *, with_pictures: bool = True) -> Arena:
        """Write an arena of questions, or open that of the same ones.

        Args:
            path: Its folder.
            questions: Each with its pictures, and with the frames of its videos, which are read one by one.
            with_pictures: Whether they are written.

        Raises:
            EvaluatorError: there is an arena of other questions.
            SoupError: a video can't be decoded.
        """
        kept = list(questions)
        only_questions = [question for question, _, _ in kept]
        if (path / FILE_NAME).exists():
            arena = cls(path)
            arena._refuse_other(only_questions)
            return arena
        shown = [{"index": question.index, "parts": [*map(list, question.parts)]} for question in only_questions]
        document: dict[str, object] = {"schema": 1, "seed": secrets.token_hex(16), "questions": shown}
        frames = {name: decode for _, _, videos in kept for name, decode in videos.items()}
        for name, read in {name: read for _, images, _ in kept for name, read in images.items()}.items():
            if with_pictures:
                write_atomic(path / "images" / name, read())
        if frames:
            written = {name: _write_frames(path, decode()) if with_pictures else [] for name, decode in frames.items()}
            document["frames"] = written
        write_atomic(path / FILE_NAME, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return cls(path)

    @property
    def votes_path(self) -> Path:
        """The file of votes."""
        return self.path / "votes.jsonl"

    @property
    def digest(self) -> str:
        """The digest of the questions, their pictures by content."""
        parts = [[question.index, [*map(list, question.parts)]] for question in self.questions.values()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def image(self, name: str) -> Path:
        """Return the file of a picture of a question's, of a video, or of a frame."""
        return self.path / "images" / name

    def prompt(self, question: Question) -> Prompt:
        """Return a question as an engine is asked it: of a video its frames."""
        return [part for kind, value in question.parts for part in self._prompt_parts(kind, value)]

    def pictures(self, question: Question) -> list[Path]:
        """Return the files of all that is seen of a question: its pictures, and the frames of its videos."""
        return [Path(part["value"]) for part in self.prompt(question) if part["type"] == "image"]

    def _prompt_parts(self, kind: str, value: str) -> Prompt:
        if kind == "text":
            return [{"type": "text", "value": value}]
        names, video = (self.frames[value], {"video": value}) if kind == "video" else ([value], {})
        return [{"type": "image", "value": str(self.image(name).absolute()), **video} for name in names]

    def baseline(self, name: str | None = None) -> str:
        """Return the candidate that others are compared with: the named one, or else the first that came.

        Raises:
            EvaluatorError: there is no such candidate, or none at all.
        """
        if not self.members:
            raise EvaluatorError(f"{self.path}: nobody has answered yet: soup arena CHECKPOINT ... adds candidates.")
        if name is not None and name not in self.members:
            raise no_candidate(self.path, name, self.members)
        return name or next(iter(self.members))

    def givers(self, question: str) -> dict[str, list[str]]:
        """Return who gave each answer to a question, by the answer's key."""
        givers: dict[str, list[str]] = {}
        for member in self.members.values():
            if question in member.keys:
                givers.setdefault(member.keys[question], []).append(member.name)
        return givers

    def refuse_other_weights(self, recipes: Mapping[str, str]) -> None:
        """Refuse candidates under whose names the arena has others.

        Args:
            recipes: The digest of each candidate's recipe, by its name.

        Raises:
            EvaluatorError: there are some; all are listed.
        """
        self.refresh()
        if taken := [
            name for name in self.members if recipes.get(name, self.members[name].recipe) != self.members[name].recipe
        ]:
            raise EvaluatorError(
                f"{', '.join(taken)}: the arena {self.path} has other weights under that name. Rename the folder, or "
                f"choose another {option_name('run_dir')}."
            )

    def add(self, member: Member) -> None:
        """Write a candidate's answers, in place of earlier ones of the same candidate.

        Raises:
            EvaluatorError: another candidate has that name.
        """
        self.refuse_other_weights({member.name: member.recipe})
        if self.members.get(member.name) == member:
            return
        shown = re.sub(r"[^\w.-]+", "_", member.name)[:80]
        number = 1 + max(map(_number, self._files.values()), default=0)
        file = self._files.get(member.name) or self.path / "candidates" / f"{number:03}-{shown}.json"
        document = {"schema": 1, "name": member.name, "recipe": member.recipe, "answering": dict(member.answering)}
        text = json.dumps({**document, "answers": dict(member.answers)}, indent=1, ensure_ascii=False)
        write_atomic(file, text + "\n")
        self.members[member.name], self._files[member.name] = member, file

    def _frames(self, videos: object) -> dict[str, list[str]]:
        try:
            check_kinds({"frames": videos}, {"frames": dict}, {"frames": list})
            frames = cast("dict[str, list[str]]", videos)
            if any(
                not isinstance(name, str) or not PICTURE.fullmatch(name) for names in frames.values() for name in names
            ):
                raise ValueError("a frame that is named by something else than its content")
        except ValueError as error:
            raise JournalError(f"{self.path / FILE_NAME}: damaged ({error}); restore it.") from error
        return frames

    def _question(self, row: Mapping[str, object]) -> Question:
        try:
            parts = tuple((str(kind), str(value)) for kind, value in cast("list[list[str]]", row["parts"]))
            if any(kind in NAMES and not NAMES[kind].fullmatch(value) for kind, value in parts):
                raise ValueError("a picture or video that is named by something else than its content")
            if {kind for kind, _ in parts} - {"text", *NAMES}:
                raise ValueError("a part that is neither text, image nor video")
            if missing := [value for kind, value in parts if kind == "video" and value not in self.frames]:
                raise ValueError(f"no frames of the video {missing[0]}")
            return Question(str(row["index"]), parts)
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{self.path / FILE_NAME}: damaged ({error}); restore it.") from error

    def _member(self, path: Path) -> Member:
        kinds = {"name": str, "recipe": str, "answering": dict, "answers": dict}
        document = _read(path, kinds)
        name, recipe, answering, answers = (document[key] for key in kinds)
        if missing := [index for index in self.questions if index not in cast("Mapping[str, str]", answers)]:
            raise JournalError(f"{path}: damaged (no answer to {missing[0]}); remove it, and ask {name!r:.80} again.")
        return Member(
            str(name), str(recipe), cast("Mapping[str, object]", answering), cast("Mapping[str, str]", answers)
        )

    def _refuse_other(self, questions: Iterable[Question]) -> None:
        by_index = {question.index: question for question in questions}
        changed = [
            index for index in {**self.questions, **by_index} if self.questions.get(index) != by_index.get(index)
        ]
        if changed:
            raise EvaluatorError(
                f"{self.path}: is an arena of other questions ({len(changed)} differ, e.g. {changed[0]}); votes on "
                f"them stay theirs. Choose another {option_name('run_dir')}."
            )


def _write_frames(path: Path, frames: Sequence[bytes]) -> list[str]:
    """Write a video's frames, and return their names; some may be the same."""
    names = [f"{hashlib.sha256(frame).hexdigest()}.png" for frame in frames]
    for name, frame in dict(zip(names, frames, strict=True)).items():
        write_atomic(path / "images" / name, frame)
    return names


def _number(file: Path) -> int:
    return int(file.name.partition("-")[0])


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path, kinds: Mapping[str, type]) -> dict[str, object]:
    document = read_json(path, JournalError, MOST_BYTES)
    if not isinstance(document, dict):
        raise JournalError(f"{path}: damaged (expected an object, found {type(document).__name__}); restore it.")
    try:
        check_kinds(document, kinds, {"answers": str} if "answers" in kinds else {})
    except ValueError as error:
        raise JournalError(f"{path}: damaged ({error}); restore it.") from error
    return document
