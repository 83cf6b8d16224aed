"""Arenas for tests: candidates that answer at once by what their weights hold, and arenas without any."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from evaluators.arena.record import Arena, Member, Question
from evaluators.arena.votes import Match, Vote
from tests.helpers.toy_pools import make_checkpoint

# A user's model for --model FILE.py:Speaker. It says what stands in its `head`, but the same as all on every third
# question; notes what it was asked next to itself.
SPEAKER = """
from pathlib import Path

from safetensors.numpy import load_file

NOTES = Path(__file__).with_suffix(".notes")


class Speaker:
    def __init__(self, directory):
        (file,) = Path(directory).glob("*.safetensors")
        self.number = float(load_file(file)["head"][0])

    def answer(self, prompts):
        with NOTES.open("a") as notes:
            notes.write(f"{self.number:g} was asked {len(prompts)}\\n")
        return [self.reply(prompt) for prompt in prompts]

    def reply(self, prompt):
        assert all(Path(part["value"]).is_file() for part in prompt if part["type"] == "image")
        text = "".join(part["value"] for part in prompt if part["type"] == "text")
        number = int(text.rpartition(" ")[2])
        return "all say this" if number % 3 == 0 else f"I say {self.number:g} to {number}"
"""


def write_prompts(path, count=6):
    """Questions with one picture each, none of whose answers is in the file."""
    rows = []
    for number in range(count):
        Image.new("RGB", (8, 6), (40 * number % 256, 80, 120)).save(path.with_name(f"{number}.png"))
        rows.append({"id": f"q{number}", "image": f"{number}.png", "question": f"What of {number}"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_candidates(folder, names=("a", "b", "c")):
    """Checkpoints whose answers differ, and the file of the model that answers with them."""
    for number, name in enumerate(names, start=1):
        make_checkpoint(folder / "ckpts" / name, number, head=[number, 0, 0, 0])
    (folder / "speaker.py").write_text(SPEAKER)
    return [f"ckpts/{name}" for name in names]


def made_arena(path, answers):
    """An arena of candidates' answers by name, each a list; question q0 has a picture."""
    picture = path.with_name("picture.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "teal").save(picture)
    name = f"{'ab' * 32}.png"
    count = len(next(iter(answers.values())))
    questions = [
        (Question(f"q{n}", ((("image", name),) if n == 0 else ()) + (("text", f"What of {n}?"),)), {}, {})
        for n in range(count)
    ]
    questions[0] = (questions[0][0], {name: picture.read_bytes}, {})
    arena = Arena.make(Path(path), questions)
    for member, texts in answers.items():
        arena.add(Member(member, f"recipe of {member}", {}, {f"q{n}": text for n, text in enumerate(texts)}))
    return Arena(path)


def vote(arena, voter, question, better, worse, choice="left", by="person"):
    """A vote of somebody for one candidate's answer over another's; the better stands on the left."""
    left, right = (arena.members[name].keys[question] for name in (better, worse))
    return Vote(voter, by, question, left, right, choice)


def match_of(arena, question, first, other):
    """The match of two candidates' answers."""
    return Match.of(question, *(arena.members[name].keys[question] for name in (first, other)))
