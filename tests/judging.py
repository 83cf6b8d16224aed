"""What the tests of evaluators share: a candidate that is a plain directory, toy test sets of the exact schemas."""

import base64
import csv
import io
import json
import string
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from soup.errors import CheckpointError

CIRCLE = 1_000_000
OCR_CATEGORIES = [
    "Regular Text Recognition",
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition",
]

# A user's model for --model FILE.py:CLASS. It answers what the checkpoint's answers.json says of the <index> in the
# prompt, notes how often it was built, and what it was asked, next to itself.
SCRIPTED = """
import json, re
from pathlib import Path

NOTES = Path(__file__).with_suffix(".notes")

class Scripted:
    def __init__(self, directory):
        assert isinstance(directory, str)
        self.answers = json.loads((Path(directory) / "answers.json").read_text())
        self.note(f"built {Path(directory).name}")

    def note(self, line):
        with NOTES.open("a") as file:
            file.write(line + "\\n")

    def answer(self, messages):
        self.note(f"asked {len(messages)}")
        return [self.answers[self.marker(message)] for message in messages]

    def marker(self, message):
        assert [part["type"] for part in message] == ["image", "text"]
        assert Path(message[0]["value"]).is_file()
        return re.search("<([0-9]+)>", message[1]["value"]).group(1)

class Broken(Scripted):
    def answer(self, messages):
        raise RuntimeError("the model is on fire")

class TooFew(Scripted):
    def answer(self, messages):
        return super().answer(messages)[:-1]

class Nothing(Scripted):
    def answer(self, messages):
        return [None, *super().answer(messages)[1:]]

class OneText(Scripted):
    def answer(self, messages):
        return "A"

class Unbuildable:
    def __init__(self, directory):
        raise OSError("no GPU for you")
    def answer(self, messages): ...

class Mute:
    pass

number = 3
"""


@dataclass
class ToyCandidate:
    """A candidate whose checkpoint lies on disk; `calls` is what evaluators asked of it."""

    path: Path
    scratch: Path
    digest: str
    calls: list[str] = field(default_factory=list)

    @property
    def template(self):
        return self.path

    def directory(self):
        self.calls.append("directory")
        return self.path

    def load_into(self, module, names=None):
        import safetensors.torch
        import torch

        self.calls.append("load_into")
        names = names or {}
        state, saved = module.state_dict(keep_vars=True), {}
        for file in sorted(self.path.glob("*.safetensors")):
            saved |= {names.get(name, name): value for name, value in safetensors.torch.load_file(file).items()}
        if not set(saved) <= set(state):
            raise CheckpointError("names in memory are not the names on disk")
        with torch.no_grad():
            for name, value in saved.items():
                state[name].copy_(value)


def scripted(tmp_path, answers, name="m"):
    """A candidate that gives these answers, by the index in the prompt."""
    path = tmp_path / "checkpoints" / name
    path.mkdir(parents=True)
    (path / "answers.json").write_text(json.dumps({str(index): answer for index, answer in answers.items()}))
    scratch = tmp_path / "scratch" / name
    scratch.mkdir(parents=True)
    return ToyCandidate(path, scratch, digest=f"digest-of-{name}")


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def mmbench_rows(count, options=4):
    """`count` questions with every rotation of their options, the rotations' images given by reference."""
    rows = []
    for question in range(1, count + 1):
        words = [f"w{question}x{place}" for place in range(options - question % 2)]
        for turn in range(len(words)):
            turned = words[turn:] + words[:turn]
            rows.append(
                {
                    "index": question + turn * CIRCLE,
                    "question": f'<{question + turn * CIRCLE}> What is it, "this"?',
                    "hint": "Look.\nTwice." if question % 3 == 0 else None,
                    **dict(zip("ABCD", turned + [None] * 4, strict=False)),
                    "answer": string.ascii_uppercase[turned.index(words[0])],
                    "category": ["ocr", "image_emotion"][question % 2],
                    "image": png((question % 256, 7, 9)) if turn == 0 else str(question),
                    "source": "toy",
                    "l2-category": ["coarse_perception", "logic_reasoning"][question % 2],
                    "comment": None,
                    "split": "dev",
                }
            )
    return sorted(rows, key=lambda row: row["index"])


def ocrbench_rows(count):
    return [
        {
            "index": index,
            "image": png((index % 256, index // 256, 200)),
            "dataset": "toy",
            "question": f"<{index}> What is written in the image?",
            "answer": repr([f"Text {index}!", f"{index:05d}"]),
            "category": OCR_CATEGORIES[index % 5],
        }
        for index in range(count)
    ]


def write_tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_MINIMAL)
    return path


def right(rows):
    """The right answer of each row."""
    return {row["index"]: eval(row["answer"])[0] if row["answer"][0] == "[" else row["answer"] for row in rows}
