"""The judge as VLMEvalKit's functions know one, in front of the user's own: what it fails at is remembered."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evaluators.answering.judge_session import JudgeSession
from evaluators.vlmeval.rule import Replies
from soup.errors import EvaluatorError

__all__ = ["LibraryClient", "LibraryJudge"]


class LibraryJudge:
    """Stands for VLMEvalKit's `build_judge`, and remembers what its functions swallow.

    Args:
        session: The user's judge; None: none is to be asked.
        replies: Which of its replies can be read, and what VLMEvalKit is handed in place of others.
        folder: Where images that the judge is shown are kept as files.
    """

    def __init__(self, session: JudgeSession | None, replies: Replies, folder: Path) -> None:
        self.session, self._replies, self._folder = session, replies, folder
        self.failures: list[EvaluatorError] = []
        self._unread: dict[str, dict[float, list[str]]] = {}  # replies by prompt and temperature

    def __call__(self, **settings: Any) -> _Judge:
        """Return a judge with VLMEvalKit's settings."""
        return _Judge(self, settings)

    def reply(self, prompt: str, temperature: float, system: str, images: Sequence[str] = ()) -> str:
        """Return the reply to a prompt, and to images: texts of base64, or paths."""
        if self.session is None:
            raise EvaluatorError("VLMEvalKit asks for a judge where none is expected.")
        try:
            reply = self.session.generate(prompt, temperature, system=system, images=[*map(self._keep, images)])
        except EvaluatorError as failure:
            self.failures.append(failure)
            raise
        if not re.search(self._replies.prompts, prompt):
            return reply
        if match := re.search(self._replies.pattern, reply):
            self._unread.pop(prompt, None)
            return next(iter(match.groups()), reply)
        return self.pass_over(prompt, temperature, reply)

    def _keep(self, image: str) -> str:
        """Return an image as a file that is named by its content, as a reply's key expects it."""
        is_text = image.startswith("data:")
        content = base64.b64decode(image.partition(",")[2]) if is_text else Path(image).read_bytes()
        path = self._folder / f"{hashlib.sha256(content).hexdigest()[:32]}.{'png' if content[1:4] == b'PNG' else 'jpg'}"
        if not path.exists():
            path.write_bytes(content)
        return str(path)

    def pass_over(self, prompt: str, temperature: float, reply: str) -> str:
        """Remember a reply that can't be read, and return what stands for it."""
        self._unread.setdefault(prompt, {}).setdefault(temperature, []).append(reply)
        return self._replies.otherwise or reply

    def unread(self, *, by_prompt: bool = False) -> list[str]:
        """Return the replies that can't be read; of those that were asked for once more, warmer, the first.

        Args:
            by_prompt: Whether it is at most one for each prompt.
        """
        most = 1 if by_prompt else None
        return [reply for tries in self._unread.values() for reply in max(tries.values(), key=len)[:most]]


class LibraryClient:
    """Stands for OpenAI's client, which a few of VLMEvalKit's functions ask by themselves."""

    def __init__(self, judge: LibraryJudge) -> None:
        self._judge = judge
        self.beta = self.chat = self.completions = self

    def create(self, *, messages: Sequence[Mapping[str, str]], temperature: float = 0, **_: object) -> Any:
        """Return the judge's reply to a text, in the client's form."""
        return _in_client_form(content=self._judge.reply(messages[-1]["content"], temperature, ""))

    def parse(
        self, *, messages: Sequence[Mapping[str, str]], response_format: Any, temperature: float = 0, **_: object
    ) -> Any:
        """Return the judge's reply to a text, in the client's form, as an object of a class of pydantic's."""
        prompt = messages[-1]["content"]
        reply = self._judge.reply(prompt, temperature, "")
        try:
            parsed = response_format.model_validate_json(reply[reply.find("{") : reply.rfind("}") + 1])
        except ValueError:
            parsed = response_format.model_validate_json(self._judge.pass_over(prompt, temperature, reply))
        return _in_client_form(parsed=parsed)


def _in_client_form(**message: object) -> Any:
    return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(**message))])


class _Judge:
    """The judge as VLMEvalKit's functions know one."""

    fail_msg = "Failed to obtain answer via API."
    model = "judge"

    def __init__(self, judge: LibraryJudge, settings: Mapping[str, Any]) -> None:
        if judge.session is None:
            raise EvaluatorError("VLMEvalKit asks for a judge where none is expected.")
        self._judge = judge
        self._temperature = settings.get("temperature", 0)
        self.system_prompt: str = settings.get("system_prompt") or ""

    def working(self) -> bool:
        """Whether it answers; where it does not, the session says so."""
        return True

    def generate(self, message: Any, **settings: Any) -> str:
        """Return the judge's reply to a text, or to the texts and images of a message."""
        parts = [message] if isinstance(message, str | Mapping) else list(message)
        plain = [("text", part) if isinstance(part, str) else (part["type"], str(part["value"])) for part in parts]
        texts, images = ([value for kind, value in plain if kind == wanted] for wanted in ("text", "image"))
        temperature = settings.get("temperature", self._temperature)
        return self._judge.reply("\n".join(texts), temperature, self.system_prompt, images)
