"""A part of a prompt in the words of chat templates, its picture opened."""

from __future__ import annotations

from typing import Any

from soup.errors import EvaluatorError

__all__ = ["template_part"]


def template_part(type: str, value: str, video: str = "", *, picture_word: str = "image") -> dict[str, Any]:
    """Say a part as an entry of a message's content.

    Args:
        type: `text` or `image`.
        value: The text, or the picture's path.
        video: The video of which the picture is a frame, for whoever knows videos.
        picture_word: What the entry of a picture is called.

    Raises:
        EvaluatorError: another type.
    """
    from PIL import Image

    if type == "text":
        return {"type": "text", "text": value}
    if type != "image":
        raise EvaluatorError(f"A prompt's part is text or image; found {type!r}.")
    with Image.open(value) as image:
        # By Pillow alone, as VLMEvalKit does: a score is to be the leaderboard's, whatever training does to pictures.
        return {"type": picture_word, picture_word: image.convert("RGB")}
