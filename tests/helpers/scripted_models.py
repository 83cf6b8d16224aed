"""What the tests of evaluators share: candidates, a judge on loopback, and VLMEvalKit's own verdict."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import warnings
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from evaluators.vlmeval.light_import import vlmeval_module
from soup.errors import CheckpointError

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

    def answer(self, prompts):
        self.note(f"asked {len(prompts)}")
        return [self.answers[self.marker(prompt)] for prompt in prompts]

    def marker(self, prompt):
        images = [part["value"] for part in prompt if part["type"] == "image"]
        assert images and all(Path(image).is_file() for image in images)
        return re.search("<([A-Za-z_-]*[0-9][0-9A-Za-z_-]*)>", "".join(part["value"] for part in prompt)).group(1)

class Broken(Scripted):
    def answer(self, prompts):
        raise RuntimeError("the model is on fire")

class TooFew(Scripted):
    def answer(self, prompts):
        return super().answer(prompts)[:-1]

class Nothing(Scripted):
    def answer(self, prompts):
        return [None, *super().answer(prompts)[1:]]

class OneText(Scripted):
    def answer(self, prompts):
        return "A"

class Unbuildable:
    def __init__(self, directory):
        raise OSError("no GPU for you")
    def answer(self, prompts): ...

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
    progress: list[tuple[int, int]] = field(default_factory=list)
    grades: list[tuple[int, int]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ("m",)

    def answered(self, count, of, what="answers"):
        (self.progress if what == "answers" else self.grades).append((count, of))

    def remark(self, text):
        self.remarks.append(text)

    @property
    def template(self):
        return self.path

    @property
    def logs(self):
        return self.scratch.with_name(f"{self.scratch.name}.logs")

    @property
    def kept(self):
        return self.scratch.with_name(f"{self.scratch.name}.kept")

    def directory(self):
        self.calls.append("directory")
        return self.path

    def load_into(self, module, names=None, conversions=()):
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


def grade(prompt, temperature=0):
    """What a judge replies to VLMEvalKit's prompts; sometimes it takes a second try, and not always it is right."""
    if "Model respone: " in prompt:  # their spelling
        prediction = prompt.rpartition("Model respone: ")[2].removesuffix("Extracted answer:")
        answers = re.findall(r"\[.*?\]|\b[A-D]\b|-?\d+\.?\d*", prediction)
        return answers[-1] if answers else "nothing"
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
    letter = re.search(r"number ([A-D])\d", prediction)
    return letter[1] if letter else "Z"


class PatientServer(ThreadingHTTPServer):
    """Takes as many calls at once as come: one that finds no room in the queue comes again after a second."""

    daemon_threads = True
    request_queue_size = 128


class JudgeServer:
    """An endpoint on loopback that speaks OpenAI's chat completions. `plays` makes a reply, or an HTTP answer.

    `models` are the names that it lists, or what it says in their place.
    """

    def __init__(self, plays=grade, models=("a-model",)):
        self.plays, self.models = plays, models
        self.prompts, self.headers, self.bodies = [], [], []
        self._server = PatientServer(("127.0.0.1", 0), self._handler())
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
            def do_GET(self):
                names = judge.models
                listed = names if isinstance(names, str) else json.dumps({"data": [{"id": name} for name in names]})
                text = listed.encode() if self.path == "/v1/models" else b""
                self.send_response(200 if text else 404)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                judge.headers.append((self.path, dict(self.headers)))
                judge.bodies.append(body)
                judge.prompts.append(prompt)
                status, text, headers = 200, judge.plays(prompt, body["temperature"]), {}
                if isinstance(text, tuple):
                    status, text, headers = (*text, {})[:3]
                else:
                    text = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
                with contextlib.suppress(OSError):  # who asked may be gone
                    self.send_response(status)
                    for name, value in {"Content-Length": len(text.encode()), **headers}.items():
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


def plain_vlmeval(benchmark, answers, directory, monkeypatch, model=None):
    """VLMEvalKit's own data set and full `evaluate`, called as its run.py calls them, normalised by POINTS' table.

    `model` names a judge for a benchmark that could do without.
    """
    module = vlmeval_module(benchmark.module)
    judge = model or ("a-judge" if benchmark.needs_judge else "exact_matching")
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # VLMEvalKit leaves the closing of its files to Python
        patch.setenv("PRED_FORMAT", "tsv")
        patch.setattr(module, "build_judge", StandIn)
        patch.delitem(benchmark.data_set_class().DATASET_MD5, benchmark.data_set)
        data_set = benchmark.data_set_class()(dataset=benchmark.data_set)
        data = data_set.data.drop(columns="image")
        data["prediction"] = [answers[index].encode("utf-8", "replace").decode() for index in data["index"]]
        directory.mkdir(parents=True)
        file = str(directory / f"model_{benchmark.data_set}.tsv")
        vlmeval_module("smp").dump(data, file)
        return normalised(benchmark.name, data_set.evaluate(file, model=judge), len(data))


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
