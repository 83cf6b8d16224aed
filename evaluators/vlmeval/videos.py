"""Data sets of videos: a folder of the data set's name with its table and the videos, of which frames are shown.

Which frames, and how many, is VLMEvalKit's: frame floor(i F / (N + 1)) of F, for i = 1 ... N; by some of its classes
frame floor(i (F - 1) / (N - 1)), or floor(s / 2 + round(i s)), s = (F - 1) / N, for i = 0 ... N - 1.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from evaluators.vlmeval.library_types import DataSet, Frame, Row
from soup.errors import EvaluatorError

__all__ = [
    "CHOICES_OF_FRAMES",
    "SEVERAL",
    "VIDEO_SUFFIXES",
    "Video",
    "VideoFolder",
    "video_hooks",
    "vlmeval_frame_indices",
]

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif")
SEVERAL = "video_paths"
"""The column of videos, divided by semicolons, where a question shows several."""
PATH = "video_path"
"""The column of videos where one class has no other, until it has made one of it that is right for its own folder."""
FOLDER = "prefix"
"""The column of the folder where a video is."""
UNTIMED = {"fps": 1.0, "n_frames": 1}
"""What stands for a video's times, which some classes look at but do not use unless there are subtitles."""
SHOWN_RATE = "sample_fps"
"""What stands in the source of a prompt that says how many frames a second are shown."""


@dataclass(frozen=True)
class Video:
    """A video, the files that its frames become, and what chooses them, by how many there are and are shown."""

    file: Path
    frames: tuple[str, ...]
    choose: Callable[[int, int], list[int]]

    def write(self) -> None:
        """Decode the frames and write those that are not there.

        Raises:
            EvaluatorError: the video can't be read; says why.
        """
        from finetune.media.images import frames_of
        from soup.errors import FinetuneError

        try:
            pictures = frames_of(self.file, len(self.frames), choose=self.choose)
        except FinetuneError as cause:
            raise EvaluatorError(str(cause)) from cause
        for path, picture in zip(self.frames, pictures, strict=True):
            picture.save(path)


def vlmeval_frame_indices(total: int, frames: int) -> list[int]:
    """Return which frames VLMEvalKit shows of a video by most of its classes; of a short one some twice."""
    return [int(i * (total / (frames + 1))) for i in range(1, frames + 1)]


def _from_end_to_end(total: int, frames: int) -> list[int]:
    import numpy

    return [int(index) for index in numpy.linspace(0, total - 1, frames, dtype=int)]


def _middles_of_parts(total: int, frames: int) -> list[int]:
    part = (total - 1) / frames
    return [int(part / 2 + round(part * i)) for i in range(frames)]


CHOICES_OF_FRAMES: Mapping[str, Callable[[int, int], list[int]]] = {
    "": vlmeval_frame_indices,
    "ends": _from_end_to_end,
    "middles": _middles_of_parts,
}
"""Which frames VLMEvalKit's classes show of a video, by a rule's word."""


@dataclass(frozen=True)
class VideoFolder:
    """The videos of a data set, wherever below its folder they lie, by the names that its table has for them."""

    root: Path

    @cached_property
    def _files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Files by their ways from the folder, and by those from folders below it."""
        ways, ends = dict[str, list[Path]](), dict[str, list[Path]]()
        for path in self._files:
            way = path.relative_to(self.root)
            for known, start in ((ways, 0), *((ends, number) for number in range(len(way.parts)))):
                end = Path(*way.parts[start:])
                for spelt in (end, end.with_suffix("")):
                    known.setdefault(spelt.as_posix(), []).append(path)
        return ends | ways

    def find(self, name: str, folder: str = "") -> list[Path]:
        """Return the videos of that name, with its suffix or without: one, none, or several that it may be.

        Args:
            name: Its path below the folder of videos, or of `folder`, or its name alone.
            folder: Below that folder it is, if it is there.
        """
        plain = PurePosixPath(name.removeprefix("./"))
        bare = plain.with_suffix("") if plain.suffix.lower() in VIDEO_SUFFIXES else plain
        places = [
            place / way for place in dict.fromkeys((PurePosixPath(folder), PurePosixPath())) for way in (plain, bare)
        ]
        return next((found for place in places if (found := self._by_name.get(place.as_posix()))), [])

    def digest(self) -> str:
        """Return a digest of names and sizes: videos are too long to be read for a score's key."""
        facts = [f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}" for path in self._files]
        return hashlib.sha256("\n".join(sorted(set(facts))).encode()).hexdigest()

    def faults(self, frame: Frame, spell: Callable[[str], str]) -> Iterator[str]:
        """Yield what keeps a table's rows from being asked: no name of a video, or a video that is not there.

        Args:
            frame: The table.
            spell: How VLMEvalKit spells the name of a video's file.
        """
        videos = videos_column(frame)
        if missing := [name for name in (videos or "video", "question") if name not in frame]:
            yield f"columns expected: video, question; missing: {', '.join(missing)}"
            return
        if not len(frame):
            yield "no rows"
        folders = frame[FOLDER].astype(str) if FOLDER in frame else [""] * len(frame)
        cells = zip(frame[videos].astype(str), folders, strict=True)
        names = [
            (name.strip(), folder)
            for cell, folder in cells
            for name in (cell.split(";") if videos == SEVERAL else [cell])
        ]
        for name, folder in dict.fromkeys((spell(name), folder) for name, folder in names if name):
            found = self.find(name, folder)
            if not found:
                yield f"video {name[:64]!r} is not below {self.root}"
            elif len(found) > 1:
                places = " and ".join(path.relative_to(self.root).as_posix() for path in found[:2])
                yield f"video {name[:64]!r} may be {places} below {self.root}"


def videos_column(frame: Frame) -> str | None:
    """Return the column of a table that names videos; None where there is none."""
    return next((name for name in (SEVERAL, "video", PATH) if name in frame), None)


@cache
def _shown_rate(file: Path, count: int) -> float | None:
    """Return how many frames a second so many of a video are; None where its file has no times.

    Raises:
        EvaluatorError: the video can't be read; says why.
    """
    from finetune.media.images import video_seconds
    from soup.errors import FinetuneError

    try:
        seconds = video_seconds(file)
    except FinetuneError as cause:
        raise EvaluatorError(str(cause)) from cause
    return count / seconds if seconds else None


def video_hooks(
    base: type[DataSet],
    folder: VideoFolder,
    table: Path,
    frame_paths: Callable[[Path], list[str]],
    link: Callable[[dict[str, str]], dict[str, str]],
) -> dict[str, Callable[..., Any]]:
    """Return what stands for a class's ways to its folder, to frames and to prompts for a model of images.

    Args:
        base: VLMEvalKit's class.
        folder: Where its videos are.
        table: Its table.
        frame_paths: Gives the files that a video's frames will be.
        link: Makes a part of a prompt, an image that lies beside the videos, one that is named by its content.
    """
    tells_rate = SHOWN_RATE in inspect.getsource(base.build_prompt)
    gives_more = "return frame_paths, indices, video_info" in inspect.getsource(base.save_video_frames)
    videos: dict[str, str] = {}  # names by the path of each frame

    def save_video_frames(self: DataSet, line: Row, *more: object, **_: object) -> Any:
        name, prefix = (line, "") if isinstance(line, str) else (str(line["video"]), str(line.get(FOLDER, "")))
        if isinstance(line, str) and more and isinstance(more[0], str):  # a question's name, and its video's
            name = more[0]
        (video,) = folder.find(name, prefix)  # see faults
        paths = frame_paths(video)
        videos.update(dict.fromkeys(paths, name))
        times = {**UNTIMED, SHOWN_RATE: _shown_rate(video, len(paths))} if tells_rate else UNTIMED
        return (paths, [], times) if gives_more else paths

    def build_prompt(self: DataSet, line: Row) -> list[dict[str, str]]:
        prompt: list[dict[str, str]] = base.build_prompt(self, copy.copy(line), video_llm=False)  # one adds to its row
        return [{**part, "video": videos[part["value"]]} if part["value"] in videos else link(part) for part in prompt]

    def prepare_dataset(self: DataSet, *_: object) -> dict[str, str]:
        self.video_path = str(folder.root)  # where one class keeps it
        return {"root": str(folder.root), "data_file": str(table)}

    return {
        "prepare_dataset": prepare_dataset,
        "save_video_frames": save_video_frames,
        "save_video_frames_single": save_video_frames,
        "save_video_into_images": save_video_frames,
        "build_prompt": build_prompt,
    }
