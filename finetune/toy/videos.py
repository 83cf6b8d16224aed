"""Videos in which a shape changes its color once: which color came first is in the frames' order alone.

A video that is shown backwards has the same frames and the other answer. Questions are as VLMEvalKit's TempCompass asks
them, of its kind `caption_matching`, in which an option's words are an answer.
"""

from __future__ import annotations

from random import Random

from finetune.toy import render
from finetune.toy.tasks import COLORS, Question, Scene

__all__ = ["VIDEOS", "video_rows"]

ENDING = "\nPlease directly give the best option:"  # VLMEvalKit's own
ASKED = ("first", "last")


def _video(random: Random) -> Scene:
    colors = random.sample(COLORS, 2)
    frames = render.video(random, random.choice(render.SHAPES), (colors[0], colors[1]))
    turn = random.randrange(2)
    answer = colors[turn]
    random.shuffle(colors)
    options = [f"Caption {letter}: {color}" for letter, color in zip("AB", colors, strict=True)]
    text = f"Which color comes {ASKED[turn]}?"
    question = Question("\n".join([text, *options]) + ENDING, answer)
    row = {"question": text, "candidates": repr(options), "answer": options[colors.index(answer)], "dim": "order"}
    return Scene("video", frames, {"video": question}, is_video=True, row=row)


def video_rows(scenes: list[Scene]) -> list[dict[str, object]]:
    """Give the rows of `TempCompass_MCQ.tsv` about videos that are called video0, video1 and so on."""
    fixed = {"task_type": "caption_matching", "prefix": "./videos", "suffix": ".mp4"}
    return [{**fixed, "video": f"video{i}", **scene.row, "index": i} for i, scene in enumerate(scenes)]


VIDEOS = {"video": _video}
