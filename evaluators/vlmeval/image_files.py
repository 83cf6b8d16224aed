"""Images of test sets as files: those that a table holds, which are written once a model is to see them, or names."""

from __future__ import annotations

import base64
import binascii
import hashlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from evaluators.answering.file_digest import file_digest
from evaluators.vlmeval.data_checks import columns_of_files, named_files
from evaluators.vlmeval.library_types import Frame, Row
from evaluators.vlmeval.videos import CHOICES_OF_FRAMES, Video
from soup.errors import EvaluatorError
from soup.evaluation.api import Prompt

__all__ = ["IMAGE_IN_TEXT", "ImageFiles", "digest_of_sizes", "with_image_files"]

SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
START_CHARACTERS = 8  # of base64, that hold the six bytes by which the kinds of image are told apart
WRITERS = 4
"""Threads that write images. A file system makes the files of one folder one after the other: so there are sixteen."""
IMAGE_IN_TEXT = "data:image/"
"""How VLMEvalKit begins an image in a prompt that is no file."""


def with_image_files(frame: Frame, folder: Path) -> Frame:
    """Return the table with the files that it names, where it has no images: as they stand, or below a folder."""

    def found(name: str) -> str:
        return str(folder / name) if not Path(name).is_file() and (folder / name).is_file() else name

    def cell_of(cell: object) -> str:
        names = [found(name) for name in named_files(cell)]
        return repr(names) if str(cell).startswith("[") else names[0]

    return frame.assign(**{column: [cell_of(cell) for cell in frame[column]] for column in columns_of_files(frame)})


def digest_of_sizes(frame: Frame) -> str:
    """Return a digest of the sizes of the files that a table names, in its order; empty where it names none."""
    columns = columns_of_files(frame)
    if not columns:
        return ""
    sizes = [Path(name).stat().st_size for column in columns for cell in frame[column] for name in named_files(cell)]
    return hashlib.sha256("\n".join(map(str, sizes)).encode()).hexdigest()


class ImageFiles:
    """The images of all test sets as files of a temporary directory, gone with this object.

    A file is named by its content, so that it can't be another data set's image of the same index, and an answer that
    is kept is known by it. It is written only when a model is to see it: answers that are kept already need no image.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="soup-images-"))
        weakref.finalize(self, _remove, self.directory)
        self._paths: dict[str, str] = {}  # by cell: Python remembers the hash of a text it has seen
        self._videos: set[str] = set()  # the first frames of those that are known
        self._unwritten: dict[str, str | Video | Path] = {}  # cells, the video whose frame it is, or the file, by path

    def paths(self, row: Row) -> list[str]:
        """Return where a row's images will be, once `write` has written them. Its `image` is base64, or a list of it.

        Raises:
            EvaluatorError: an image is no base64.
        """
        cells = row["image"] if isinstance(row["image"], list) else [row["image"]]
        try:
            return [self._path(cell) for cell in cells]
        except (binascii.Error, ValueError) as cause:
            raise EvaluatorError(f"The image of row {row['index']} is no base64 ({cause}).") from cause

    def part(self, part: dict[str, str]) -> dict[str, str]:
        """Return a part of a prompt, an image that stands in the text as the path where it will be."""
        if part["type"] != "image" or part["value"].startswith(str(self.directory)):
            return part
        is_text = part["value"].startswith(IMAGE_IN_TEXT)
        return {**part, "value": self._path(part["value"].partition(",")[2] if is_text else part["value"])}

    def link(self, part: dict[str, str]) -> dict[str, str]:
        """Return a part of a prompt, an image that is a file of a user's as a link that is named by its content."""
        if part["type"] != "image" or part["value"].startswith(str(self.directory)):
            return part
        file = Path(part["value"]).absolute()
        digest = file_digest(file)[:32]
        path = f"{self.directory}/{digest[0]}/{digest}{file.suffix}"
        if not Path(path).exists():
            self._unwritten[path] = file
        return {**part, "value": path}

    def frame_paths(self, video: Path, count: int, choice: str = "") -> list[str]:
        """Return where so many frames of a video will be; they are named by the video's content."""
        name = f"{file_digest(video)[:24]}-{count}{choice and f'-{choice}'}"
        paths = tuple(str(self.directory / f"{name}-{number}.png") for number in range(1, count + 1))
        if paths[0] not in self._videos:
            self._videos.add(paths[0])
            self._unwritten |= dict.fromkeys(paths, Video(video, paths, CHOICES_OF_FRAMES[choice]))
        return [*paths]

    def start_writing(self, prompts: Iterable[Prompt]) -> Callable[[], None]:
        """Write the images of prompts that are not on disk yet, in the background; return what waits for the last."""
        paths = dict.fromkeys(part["value"] for prompt in prompts for part in prompt if part["type"] == "image")
        new = {path: cell for path in paths if (cell := self._unwritten.pop(path, None)) is not None}
        for folder in {Path(path).parent for path in new}:
            folder.mkdir(exist_ok=True)
        videos = dict.fromkeys(content for content in new.values() if isinstance(content, Video))
        writer = ThreadPoolExecutor(WRITERS)
        writing = [writer.submit(video.write) for video in videos]
        writing += [writer.submit(_write_image, path, cell) for path, cell in new.items() if isinstance(cell, str)]
        writing += [writer.submit(Path(path).symlink_to, file) for path, file in new.items() if isinstance(file, Path)]
        writer.shutdown(wait=False)

        def wait() -> None:
            for each in writing:
                each.result()

        return wait

    def _path(self, cell: str) -> str:
        if cell not in self._paths:
            start = base64.b64decode(cell[:START_CHARACTERS])
            suffix = next((end for begin, end in SUFFIXES.items() if start.startswith(begin)), ".png")
            digest = hashlib.sha256(cell.encode()).hexdigest()[:32]
            path = f"{self.directory}/{digest[0]}/{digest}{suffix}"
            self._paths[cell], self._unwritten[path] = path, cell
        return self._paths[cell]


def _remove(directory: Path) -> None:
    """Remove a directory, all of its folders at once: one by one, each file that is on the disk takes 2 ms."""
    threads = [threading.Thread(target=shutil.rmtree, args=(path, True)) for path in directory.glob("*/")]
    with suppress(RuntimeError):  # late at an interpreter's end there are no new threads
        for thread in threads:
            thread.start()
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    shutil.rmtree(directory, ignore_errors=True)


def _write_image(path: str, cell: str) -> None:
    with Path(path).open("wb", buffering=0) as file:
        file.write(base64.b64decode(cell))
