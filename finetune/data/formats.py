r"""Rows of the usual formats into one form.

llava       {"image": "7.png", "conversations": [{"from": "human", "value": "<image>\nWhat ..."},
                                                 {"from": "gpt", "value": "..."}]}; `image` may be a list
sharegpt    {"images": ["7.png"], "system": "...", "conversations": as above}
openai      {"messages": [{"role": "user", "content": "..." or [{"type": "text", "text": "..."},
             {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}]}, {"role": "assistant", ...}]},
            and `images` for a content that says `<image>`, or parts {"type": "image"} that hold no image themselves

alpaca, swift, flat: one question and one answer, see `flat_rows.py`

In all of them an image is a path, bytes, base64, a data or file URL, or {"bytes", "path"}. `video` (or `videos`) is a
file, a directory of frames, or a list of frames; its marker is `<video>` or `<image>`. Turns have from and value or
role and content. A marker counts in a user's turn; elsewhere it is a word, unless images are left for it. Keys
without a value, NaN or "None" among them, are as good as absent: tables have all keys in all rows.

By its look a row is `openai` if it has messages, and one of the others if it has conversations: `llava` with `image`,
`sharegpt` with `images` or `system`; with neither the two read the same. With messages and conversations, or image and
images, the look does not tell, and the configuration must.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune.config import Columns
from finetune.data.flat_rows import FLAT, as_conversation, is_absent, listed, rename_columns
from finetune.data.rows import Fault, Message, Picture, RowError, Sample
from finetune.media.sources import looks_like_base64
from soup.support.text import pluralize

__all__ = ["ROLES", "detect_format", "read_row"]

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
MARKER = re.compile(r"<image>\n?|<video>\n?")  # the line break after it belongs to the marker
BOTH = ("images", "image")
IMAGE_KEYS = {"llava": ("image",), "sharegpt": ("images",), "openai": BOTH, **dict.fromkeys(FLAT, BOTH)}
TURN_KEYS = ("messages", "conversations")
UNREAD = (("<audio>", "audio"), ("<audio>", "audios"), ("<bbox>", "objects"), ("<ref-object>", "objects"))
"""Markers that other tools fill in, and the column that they fill in."""
HOW_MUCH_LEARNT = ("loss", "weight", "train", "training", "train_detail", "training_detail")
"""Of ms-swift, OpenAI and Axolotl: false or 0 keeps an answer from being learnt, others weigh it, or parts of it."""
BESIDE = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
"""Parts of an answer that stand beside its content."""
UNWANTED = ("label", "kto_tag")  # of KTO, as ms-swift and LLaMA-Factory write it: false marks a bad answer
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image_url", "input_image", "image")
VIDEO_PARTS = ("video_url", "video")


class _FaultError(ValueError):
    """What is wrong with a row, without the row's name."""

    def __init__(self, kind: str, text: str):
        self.fault = Fault(kind, text)
        super().__init__(text)


def detect_format(raw: Mapping[str, object]) -> str:
    """Give the format that a row looks like.

    Raises:
        ValueError: it looks like none, or like two.
    """
    has = {name for name, value in raw.items() if not is_absent(value) and (name in TURN_KEYS or listed(value))}
    if {"messages", "conversations"} <= has:
        raise _FaultError(
            "unreadable", "has messages (openai) and conversations (llava, sharegpt): say which by `format`"
        )
    if "messages" in has:
        return "openai"
    flat = [name for name, (question, _, answer) in FLAT.items() if {question, answer} <= {*raw}]
    if "conversations" not in has and flat:
        return flat[0]
    if "conversations" not in has:
        empty = [name for name in TURN_KEYS if name in raw]
        found = f"nothing in {empty[0]}" if empty else ", ".join(map(str, raw)) or "nothing"
        advice = "" if empty or not raw else "; say by `columns` which is the question, and which the answer"
        raise _FaultError("unreadable", f"expected conversations or messages, found {found}{advice}")
    if {"image", "images"} <= has:
        raise _FaultError("unreadable", "has image (llava) and images (sharegpt): say which by `format`")
    return "sharegpt" if has & {"images", "system", "videos"} else "llava"


def read_row(
    raw: object, where: str, root: Path, format: str | None = None, frames: int = 24, columns: Columns | None = None
) -> Sample:
    """Read a row of any format as a `Sample`.

    Args:
        raw: the row as it is in its file.
        where: its name in errors.
        root: where relative paths start.
        format: a key of `IMAGE_KEYS`; by default what the row looks like.
        frames: of a video, at most.
        columns: the row's own names of what formats have.

    Raises:
        RowError: of no known format, or with wrong roles, placeholders or answers; all that is wrong is listed.
    """
    try:
        if not isinstance(raw, Mapping):
            raise _FaultError(
                "unreadable", f"expected an object with conversations or messages, found {type(raw).__name__}"
            )
        try:
            raw = rename_columns(raw, columns) if columns else raw
            format = format or detect_format(raw)
            _refuse_unwanted(raw, format)
            _refuse_tools(raw, format)
            raw = as_conversation(raw, format) if format in FLAT else raw
        except _FaultError:
            raise
        except ValueError as error:
            raise _FaultError("unreadable", str(error)) from None
        return _Reading(raw, where, root, format, frames).sample()
    except _FaultError as wrong:
        raise RowError(where, [wrong.fault]) from None


def _refuse_unwanted(raw: Mapping[str, object], format: str) -> None:
    """Raise ValueError for a row whose answer is one to keep from; a flat row's `label` may mean anything."""
    marks = UNWANTED[1:] if format in ("alpaca", "flat") else UNWANTED
    unwanted = [name for name in marks if raw.get(name) is False]
    if unwanted:
        raise ValueError(f"{unwanted[0]}: false says that its answer is a bad one, and all are learnt; leave it out")


def _refuse_tools(raw: Mapping[str, object], format: str) -> None:
    """Raise ValueError for a row whose prompt would list tools; a flat row's `tools` may mean anything."""
    tools = raw.get("tools")
    is_text = isinstance(tools, str) and re.match(r"\s*\[\s*\{", tools)
    if format != "flat" and (is_text or any(isinstance(tool, Mapping) and tool for tool in listed(tools))):
        raise ValueError(
            "tools: what the prompt would say of them is not read; write it into the system message, and leave them out"
        )


def _refuse_other_answer(turn: Mapping[str, object], i: int) -> None:
    """Raise an error for an answer that is not to be learnt, or of which the content is a part."""
    marks = {name: turn[name] for name in HOW_MUCH_LEARNT if _is_filled(turn.get(name))}
    for name, mark in marks.items():
        if mark == 0:
            why = "is marked as not to be learnt, but all answers of a row are. End the row before it, or unmark it"
            raise _FaultError("unreadable", f"turn {i}: {why}")
        if mark != 1:
            why = "weighs the answer, but all answers count the same. Leave it out, or divide the rows over data sets"
            raise _FaultError("unreadable", f"turn {i}: {name}: {mark!r:.40} {why} of another `weight`")
    if beside := [name for name in BESIDE if _is_filled(turn.get(name))]:
        why = "not read, and the answer would be learnt without it; write it into the content, or leave it out"
        raise _FaultError("unreadable", f"turn {i}: {beside[0]} is {why}")


def _is_filled(value: object) -> bool:
    """Whether something is said: tables have a mapping whose values are all null where others have none."""
    said = (item.values() if isinstance(item, Mapping) else [item] for item in listed(value))
    return any(not is_absent(part) for parts in said for part in parts)


class _Reading:
    """One row while it is read."""

    def __init__(self, raw: Mapping[str, object], where: str, root: Path, format: str, frames: int):
        self.raw, self.where, self.root, self.format, self.frames = raw, where, root, format, frames
        self.images, self.videos = self._listed_pictures()
        self.pictures: list[Picture] = []
        self.markers = 0
        self.only_users = False
        self.faults: list[Fault] = []

    def sample(self) -> Sample:
        """Give the row as a `Sample`.

        Raises:
            RowError: with all that is wrong with it.
        """
        turns = list(self._turns())
        texts = [content for role, content in turns if role == "user" and isinstance(content, str)]
        marker_count = sum(len(MARKER.findall(text)) for text in texts)
        in_parts = any(isinstance(content, list) for _, content in turns)
        self.only_users = in_parts or marker_count >= len(self.images) + len(self.videos)
        messages: list[Message] = [{"role": role, "content": self._content(role, content)} for role, content in turns]
        images = len(self.pictures) + len(self.images) + len(self.videos)
        if images != self.markers:
            self.faults.append(Fault("placeholders", f"{self.markers} <image> in the text, {images} images"))
        elif left := len(self.images):  # as many as markers, and yet not taken
            what = f"<video> in the text, and no video for it, but {pluralize(left, 'image')}"
            self.faults.append(Fault("placeholders", f"{what}: write <image>, or name the file as `video`"))
        self.faults += self._unread(texts)
        self.faults += _wrong_roles([role for role, _ in turns])
        self.faults += _empty_answers(messages)
        if self.faults:
            raise RowError(self.where, self.faults)
        return {"messages": messages, "images": self.pictures, "where": self.where, "format": self.format}

    def _unread(self, texts: list[str]) -> list[Fault]:
        """Find markers of what other columns hold, such as ms-swift's boxes: nothing would take their place."""
        return [
            Fault("placeholders", f"{marker} stands for what {name} holds, which is not read; write it into the text")
            for marker, name in UNREAD
            if listed(self.raw.get(name)) and any(marker in text for text in texts)
        ]

    def _listed_pictures(self) -> tuple[list[object], list[object]]:
        """Return the row's own images, and its videos."""
        images = [image for name in IMAGE_KEYS[self.format] for image in listed(self.raw.get(name))]
        # A list under `video` is the frames of one.
        videos = [self.raw["video"]] if listed(self.raw.get("video")) else []
        return images, videos + listed(self.raw.get("videos"))

    def _turns(self) -> Iterator[tuple[str, str | list[object]]]:
        """Role and content of each turn."""
        name = "messages" if self.format == "openai" else "conversations"
        turns = self.raw.get(name)
        if isinstance(turns, Mapping) and all(
            isinstance(values, list) for values in turns.values()
        ):  # as some tables store a list of turns
            turns = [dict(zip(turns, values, strict=False)) for values in zip(*turns.values(), strict=False)]
        if not isinstance(turns, list) or not turns:
            raise _FaultError("unreadable", f"expected a list of turns as {name}, found {_kind(turns)}")
        if isinstance(system := self.raw.get("system"), str) and not is_absent(system):
            yield "system", system
        for i, turn in enumerate(turns, 1):
            yield self._turn(turn, i)

    def _turn(self, turn: object, i: int) -> tuple[str, str | list[object]]:
        if not isinstance(turn, Mapping):
            raise _FaultError("unreadable", f"turn {i}: expected an object, found {type(turn).__name__}")
        role, content = _first(turn, "from", "role"), _first(turn, "value", "content")
        if not isinstance(role, str) or role not in ROLES:
            raise _FaultError("roles", f"turn {i}: role {role!r} is not one of {', '.join(ROLES)}")
        if content is None:
            content = ""
        if not isinstance(content, str | list):
            raise _FaultError("unreadable", f"turn {i}: expected text or parts, found {type(content).__name__}")
        if ROLES[role] == "assistant":
            _refuse_other_answer(turn, i)
        return ROLES[role], content

    def _content(self, role: str, content: str | list[object]) -> str | list[dict[str, str]]:
        """Text alone as it is; with images as parts, each image where its marker is in a user's turn."""
        if isinstance(content, str):
            return _plain(content) if self.only_users and role != "user" else self._split_at_markers(content)
        parts = [self._part(part) for part in content]
        if all(part["type"] == "text" for part in parts):
            return _plain("".join(part["text"] for part in parts))
        return [part for part in parts if part["type"] != "text" or part["text"]]

    def _split_at_markers(self, content: str) -> str | list[dict[str, str]]:
        markers = MARKER.findall(content)
        if not markers:
            return content
        parts: list[dict[str, str]] = []
        for marker, text in zip(["", *markers], MARKER.split(content), strict=True):
            if marker:
                self._take_picture(video=marker.startswith("<video>"))
                parts.append({"type": "image"})
            parts += [{"type": "text", "text": text}] * bool(text)
        return parts

    def _take_picture(self, video: bool) -> None:
        """Put the next of the row's own images at a marker, or of its videos: they may stand at `<image>`, too."""
        self.markers += 1
        if self.images and not video:
            self._picture(self.images.pop(0), video=False)
        elif self.videos:
            self._picture(self.videos.pop(0), video=True)

    def _part(self, part: object) -> dict[str, str]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        if not isinstance(part, Mapping) or part.get("type") not in TEXT_PARTS + IMAGE_PARTS + VIDEO_PARTS:
            kind = part.get("type") if isinstance(part, Mapping) else None
            known = ", ".join(TEXT_PARTS + IMAGE_PARTS + VIDEO_PARTS)
            raise _FaultError("unreadable", f"a part of type {kind!r}; known: {known}")
        kind = part["type"]
        if kind in TEXT_PARTS:
            return {"type": "text", "text": str(part.get("text") or "")}
        inside = [
            part[name]
            for name in (kind, "image", "image_url", "video", "url", "path", "bytes")
            if part.get(name) and not is_absent(part[name])
        ]
        if inside:
            self.markers += 1
            self._picture(inside[0], kind in VIDEO_PARTS)
        else:
            self._take_picture(video=kind in VIDEO_PARTS)
        return {"type": "image"}

    def _picture(self, image: object, video: bool) -> None:
        if isinstance(image, Mapping) and image.get("url"):
            image = image["url"]
        where = f"{self.where}, {'video' if video else 'image'} {len(self.pictures) + 1}"
        source: object
        try:
            source = [self._resolve(frame) for frame in image] if isinstance(image, list) else self._resolve(image)
        except _FaultError as wrong:
            self.faults.append(wrong.fault)
            source = image
        self.pictures.append(Picture(source, where, self.frames if video else None))

    def _resolve(self, image: object) -> object:
        """Return an image by its whole path; bytes and base64 as they are."""
        if isinstance(image, Mapping):
            content, path = image.get("bytes"), image.get("path")
            if content is None and path:
                return self._resolve(path)
            if isinstance(content, bytes | str):
                return {"bytes": content, "path": path}
        if isinstance(image, bytes):
            return image
        if not isinstance(image, str) or not image:
            shown = "an empty text" if image == "" else _kind_of_image(image)
            raise _FaultError(
                "unreadable", f"image {len(self.pictures) + 1}: expected a path, bytes or base64, found {shown}"
            )
        if image[:5].lower() == "data:":
            return image
        if image[:5].lower() == "file:":
            return Path(unquote(_path_of_url(image, len(self.pictures) + 1)))
        if "://" in image[:12]:
            raise _FaultError("image_missing", f"{image[:100]}: a URL; download it first, and give the file's path")
        # os.path's is False, not an error, for a name that no file can have
        if looks_like_base64(image) and not os.path.exists(self.root / image):  # noqa: PTH110  # see sources.py
            return image
        return self.root / image


def _plain(text: str) -> str | list[dict[str, str]]:
    """Return a text; one that is about markers is a part, so that nobody takes it for one with images."""
    return [{"type": "text", "text": text}] if MARKER.search(text) else text


def _first(turn: Mapping[str, object], *keys: str) -> object:
    """Return the value of the first of the keys that has one; words for none are words here."""
    values = (turn.get(key) for key in keys)
    return next((value for value in values if isinstance(value, str) or not is_absent(value)), None)


def _path_of_url(url: str, number: int) -> str:
    try:
        return urlsplit(url).path
    except ValueError as error:  # such as a bracket that is not closed
        raise _FaultError("unreadable", f"image {number}: {url[:100]}: no URL of a file ({error})") from error


def _kind_of_image(image: object) -> str:
    if not isinstance(image, Mapping):
        return type(image).__name__
    return f"a mapping whose bytes are {type(image.get('bytes')).__name__}, and path {type(image.get('path')).__name__}"


def _kind(value: object) -> str:
    return "an empty list" if value == [] else type(value).__name__


def _wrong_roles(roles: list[str]) -> list[Fault]:
    """Check the turns: a system message may come first; then user and assistant take turns, the assistant last."""
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(turns) // 2)
    if turns and turns == expected:
        return []
    return [Fault("roles", f"expected user and assistant in turns, after at most one system; found {', '.join(roles)}")]


def _empty_answers(messages: list[Message]) -> list[Fault]:
    empty = [
        i
        for i, message in enumerate(messages, 1)
        if message["role"] == "assistant" and isinstance(message["content"], str) and not message["content"].strip()
    ]
    return [Fault("empty_answer", f"the answer of turn {i} is empty") for i in empty]
