"""Points and boxes in a row's questions and answers: checked, and written as the model is to learn them."""

from __future__ import annotations

from finetune.coordinates.conventions import Convention, Reading, named_convention
from finetune.coordinates.regions import CoordinateError, Size
from finetune.data.row_images import tiles_of
from finetune.data.rows import Fault, Message, RowError, Sample

__all__ = ["grounded"]


def grounded(sample: Sample, source_name: str, target_name: str | None = None) -> Sample:
    """Check a row's points and boxes, and write them by another convention where one is named.

    A point or box in a question (a visual prompt) and one in an answer are treated alike.

    Args:
        sample: The row.
        source_name: The convention of its texts.
        target_name: That of the texts that the model learns.

    Raises:
        RowError: they can't be read, leave the image, or can't be written so; all that is wrong is listed.
    """
    source, target = named_convention(source_name), named_convention(target_name or source_name)
    texts = _Texts(sample, source, target if target_name else None)
    messages: list[Message] = [
        {"role": message["role"], "content": texts.content(message["content"], turn)}
        for turn, message in enumerate(sample["messages"], 1)
    ]
    if texts.faults:
        raise RowError(sample["where"], texts.faults)
    return {**sample, "messages": messages}


class _Texts:
    """The texts of one row while they are read."""

    def __init__(self, sample: Sample, source: Convention, target: Convention | None):
        self.images, self.source, self.target = len(sample["images"]), source, target
        self.faults: list[Fault] = []
        in_pixels = source.scale is None or (target is not None and target.scale is None)
        self.size = self._size(sample) if in_pixels else None

    def _size(self, sample: Sample) -> Size | None:
        """Return the size of the row's one picture; None where it has another number of them, or none can be read."""
        if self.images != 1:
            return None
        size = tiles_of(sample["images"][0], lambda width, height: (width, height))
        return size if isinstance(size, tuple) else None

    def content(self, content: str | list[dict[str, str]], turn: int) -> str | list[dict[str, str]]:
        """Return a turn's content with its points and boxes as they are learnt."""
        if isinstance(content, str):
            return self._text(content, turn)
        return [{**part, "text": self._text(part["text"], turn)} if "text" in part else part for part in content]

    def _text(self, text: str, turn: int) -> str:
        if not self.source.by.pattern.search(text):
            return text
        try:
            reading = self.source.read(text, self.size)
            faults = [*reading.faults, *self._missing_images(reading)]
            self.faults += [Fault("coordinates", f"turn {turn}: {fault}") for fault in faults]
            return self.target.write(reading.pieces, self.size) if self.target else text
        except CoordinateError as error:
            self.faults.append(Fault("coordinates", f"turn {turn}: {error}"))
            return text

    def _missing_images(self, reading: Reading) -> list[str]:
        """Tell of points on an image that the row does not have."""
        numbers = sorted({region.image for region in reading.regions if not 1 <= region.image <= self.images})
        return [f"a point or box on image {number}, and the row has {self.images}" for number in numbers]
