"""What the tests of evaluators share: a candidate that is a plain directory, toy test sets of the exact schemas."""

import ast
import base64
import contextlib
import csv
import io
import json
import random
import re
import string
import threading
import warnings
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
from PIL import Image

from evaluators import vlmeval_light as light
from soup.errors import CheckpointError

CIRCLE = 1_000_000
ODD = [
    "",
    "None",
    "NA",
    "nan",
    "=1+1",
    "x" * 40_000,
    "a\nb\r\nc\rd",
    "A\tB",
    "答案是 A",
    '"A',
    "\0",
    "\ud800",
    "Z",
    "007",
]
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
        images = [part["value"] for part in message if part["type"] == "image"]
        assert images and all(Path(image).is_file() for image in images)
        return re.search("<([0-9A-Za-z_]+)>", "".join(part["value"] for part in message)).group(1)

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

    @property
    def kept(self):
        return self.scratch.with_name(f"{self.scratch.name}.kept")

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


def mmstar_rows(count):
    return [
        {
            "index": index,
            "question": f"<{index}> Which one, in this image?",
            "image": png((index % 256, 30, 60)),
            **dict(zip("ABCD", [f"s{index}x{place}" for place in range(4)], strict=True)),
            "answer": "ABCD"[index % 4],
            "category": ["coarse perception", "logical reasoning", "math"][index % 3],
            "l2_category": ["image topic", "common reasoning"][index % 2],
            "meta_info": str({"source": "toy", "split": "val"}),
        }
        for index in range(count)
    ]


def mmmu_rows(count):
    """Development rows first; two images now and then; every fifth question is open and has no options."""
    rows = []
    for index in range(1, count + 1):
        several, is_open, dev = index % 4 == 0, index % 5 == 0, index <= count // 5
        images = [png((index % 256, 90, place)) for place in range(2 if several else 1)]
        options = [f"o{index}x{place}" for place in range(4 - index % 2)]
        if several:
            options[1] = "<image 2>"
        rows.append(
            {
                "index": index,
                "id": f"{'dev' if dev else 'validation'}_Art_{index}",
                "question": f"<{index}> What does <image 1> show?" + (" And <image 2>?" if several and is_open else ""),
                "hint": None,
                **dict(zip("ABCDE", (options if not is_open else []) + [None] * 5, strict=False)),
                "answer": f"text {index}" if is_open else "ABC"[index % 3],
                "category": ["Art", "Physics"][index % 2],
                "l2-category": ["Art & Design", "Science"][index % 2],
                "image": str(images) if several else images[0],
                "split": "dev" if dev else "validation",
                "topic_difficulty": "Easy",
            }
        )
    rows[-1]["image"] = "1"  # borrowed from a row that does not count
    return rows


def mathvista_rows(count):
    """Multiple choice, whole numbers, decimal numbers and lists, in turn."""
    rows = []
    for index in range(1, count + 1):
        kind = ["choice", "integer", "float", "list"][index % 4]
        choices = [f"c{index}x{place}" for place in range(4)]
        answer = {"choice": choices[index % 3], "integer": index % 3, "float": f"{index / 10:.1f}", "list": [index, 2]}
        rows.append(
            {
                "index": index,
                "question": f"Hint: Please answer with a {kind}.\nQuestion: <{index}> What is it?",
                "image": png((index % 256, 120, 3)),
                "question_type": "multi_choice" if kind == "choice" else "free_form",
                "answer_type": "text" if kind == "choice" else kind,
                "precision": 1.0 if kind == "float" else None,
                "choices": str(choices) if kind == "choice" else None,
                "answer": str(answer[kind]),
                "answer_option": "ABCD"[index % 3] if kind == "choice" else None,
                "unit": None,
                "task": ["figure question answering", "geometry problem solving"][index % 2],
                "skills": str(["numeric commonsense", "arithmetic reasoning"][: 1 + index % 2]),
                "category": ["general-vqa", "math-targeted-vqa"][index % 2],
                "context": "toy",
                "grade": "daily life",
                "language": "english",
                "split": "testmini",
            }
        )
    return rows


def hallusionbench_rows(sets):
    """For each set two figures and two questions, and one question without an image, which nobody is asked."""
    rows = []
    for place in range(sets):
        kind = ["chart", "figure", "map"][place % 3]
        for figure, question in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]:
            seen = int(figure > 0)
            index = f"{['VD', 'VS'][place % 2]}_{kind}_{seen}_{place // 3}_{figure}_{question}"
            rows.append(
                {
                    "index": index,
                    "category": ["VD", "VS"][place % 2],
                    "l2-category": kind,
                    "question": f"<{index}> Is it so? Please answer yes or no.",
                    "answer": "Yes" if (place + figure + question) % 2 else "No",
                    "image": png((place % 256, figure, 77)) if seen else None,
                }
            )
    return rows


def ai2d_rows(count):
    return [
        {
            "index": index,
            "question": f"<{index}> What is at {index}?",
            "image": png((index % 256, index // 256, 150)),
            **dict(zip("ABCD", [index + place for place in range(4)], strict=True)),
            "answer": "DCBA"[index % 4],
            "category": "diagram",
            "image_path": f"images/{index}.png",
        }
        for index in range(count)
    ]


def mmvet_rows(count):
    return [
        {
            "index": index,
            "image": png((index % 256, 2, 222)),
            "question": f"<{index}> What is x, and why?",
            "answer": f"-{index}<AND>{index}" if index % 2 else f"mouse {index}<OR>rodent {index}",
            "category": ["rec", "ocr,math", "rec,know,gen", "ocr,spat"][index % 4],
        }
        for index in range(count)
    ]


TOYS = {
    "mmbench": lambda: mmbench_rows(30),
    "mmstar": lambda: mmstar_rows(40),
    "mmmu": lambda: mmmu_rows(50),
    "mathvista": lambda: mathvista_rows(40),
    "hallusionbench": lambda: hallusionbench_rows(12),
    "ai2d": lambda: ai2d_rows(40),
    "ocrbench": lambda: ocrbench_rows(40),
    "mmvet": lambda: mmvet_rows(40),
}


def write_tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_MINIMAL)
    return path


def right(rows):
    """The right answer of each row."""
    return {row["index"]: right_answer(row) for row in rows}


def right_answer(row):
    if "dataset" in row:  # OCRBench: any of a list
        return ast.literal_eval(row["answer"])[0]
    if "answer_option" in row:
        return row["answer_option"] or row["answer"]
    return row["answer"].replace("<AND>", " and ").partition("<OR>")[0]


def grade(prompt, temperature=0):
    """What a judge replies to VLMEvalKit's prompts; sometimes it takes a second try, and not always it is right."""
    if "Model respone: " in prompt:  # their spelling
        prediction = prompt.rpartition("Model respone: ")[2].removesuffix("Extracted answer:")
        found = re.findall(r"\[.*?\]|\b[A-D]\b|-?\d+\.?\d*", prediction)
        return found[-1] if found else "nothing"
    if "correctness score" in prompt:
        question, truth, prediction, _ = prompt.rpartition("\n<")[2].split(" | ", 3)
        if int(question.partition(">")[0]) % 7 == 3 and temperature == 0:
            return "well, it depends"
        wanted = re.split("<AND>|<OR>", truth.replace(" ", ""))
        share = sum(each in prediction.replace(" ", "") for each in wanted) / len(wanted)
        return f"{min(1.0, 2 * share) if '<OR>' in truth else share:.1f}"
    if "yes or no" in prompt.lower() or "Yes, No" in prompt:
        return "Yes" if "certainly" in prompt.rpartition("<")[2] else "No"
    prediction = prompt.rpartition("Answer: ")[2]
    found = re.search(r"number ([A-D])\d", prediction)
    return found[1] if found else "Z"


class JudgeServer:
    """An endpoint on loopback that speaks OpenAI's chat completions. `plays` makes a reply, or an HTTP answer."""

    def __init__(self, plays=grade):
        self.plays = plays
        self.prompts, self.headers, self.bodies = [], [], []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self):
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                judge.headers.append((self.path, dict(self.headers)))
                judge.bodies.append(body)
                judge.prompts.append(prompt)
                status, text, more = 200, judge.plays(prompt, body["temperature"]), {}
                if isinstance(text, tuple):
                    status, text, more = (*text, {})[:3]
                else:
                    text = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
                with contextlib.suppress(OSError):  # who asked may be gone
                    self.send_response(status)
                    for name, value in {"Content-Length": len(text.encode()), **more}.items():
                        self.send_header(name, str(value))
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        return Handler


class StandIn:
    """The same judge for VLMEvalKit's own `evaluate`, without the way through HTTP."""

    def __init__(self, **_):
        pass

    def working(self):
        return True

    def generate(self, prompt, temperature=0):
        return grade(prompt, temperature)


def plain_vlmeval(source, answers, directory, monkeypatch, model=None):
    """VLMEvalKit's own data set and full `evaluate`, called as its run.py calls them, normalised by POINTS' table.

    `model` names a judge for a benchmark that could do without.
    """
    module = light.module(source.module)
    judge = model or ("a-judge" if source.needs_judge else "exact_matching")
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # VLMEvalKit leaves the closing of its files to Python
        patch.setenv("PRED_FORMAT", "tsv")
        patch.setattr(module, "build_judge", StandIn)
        patch.delitem(source.base().DATASET_MD5, source.dataset)
        dataset = source.base()(dataset=source.dataset)
        data = dataset.data.drop(columns="image")
        data["prediction"] = [answers[index].encode("utf-8", "replace").decode() for index in data["index"]]
        directory.mkdir(parents=True)
        file = str(directory / f"model_{source.dataset}.tsv")
        light.module("smp").dump(data, file)
        return normalised(source.name, dataset.evaluate(file, model=judge), len(data))


def normalised(name, result, rows):
    if name == "ocrbench":
        return 100 * result["Final Score"] / rows
    if name == "mathvista":
        return float(result[result["Task&Skill"] == "Overall"]["acc"].item())
    if name == "mmvet":
        return float(result[result["Category"] == "Overall"]["acc"].item())
    if name == "hallusionbench":
        overall = result[result["split"] == "Overall"].iloc[0]
        return float(overall["aAcc"] + overall["fAcc"] + overall["qAcc"]) / 3
    if name == "mmmu":
        return float(result[result["split"] == "validation"]["Overall"].item()) * 100
    return float(result["Overall"].item()) * 100


def predictions(kind, rows):
    """A whole file of answers of one kind, by index."""
    answers = right(rows)
    places = {index: index % CIRCLE if isinstance(index, int) else place for place, index in enumerate(answers)}
    if kind == "half right":
        return {index: answer if places[index] // 2 % 2 else "no idea" for index, answer in answers.items()}
    if kind == "noise":
        chance = random.Random(7)
        odd = {index: chance.choice(ODD) if chance.random() < 0.2 else answer for index, answer in answers.items()}
        return {**odd, **dict(zip(answers, ODD, strict=False))}
    if kind == "sentences":
        return {index: f"The answer is {answer}." for index, answer in answers.items()}
    return answers
