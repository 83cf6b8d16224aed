"""A process that behaves as a training job does, without a model: `python stand_in_process.py FOLDER`.

It reads job.json, counts steps, keeps a checkpoint, tells its state, stops on SIGTERM after a checkpoint, and leaves a
directory with a stamp. The file `moods.json` beside the job folders says which job misbehaves, and how; `seen.jsonl`
there tells when each attempt ran, and in what environment. It imports nothing of ours: it starts in milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(folder):
    job = json.loads((folder / "job.json").read_text())
    name, steps = job["name"], job["settings"]["steps"]
    moods = folder.parent / "moods.json"
    mood = json.loads(moods.read_text()).get(name, "") if moods.exists() else ""
    checkpoint = folder / "checkpoints" / "step"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopped.append(number))
    if mood == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin(folder, name, first, mood)
    state = {"step": first, "steps": steps, "started": time.time(), "pid": os.getpid(), "host": os.uname().nodename}
    state |= {"seconds_per_step": 0.01, "loss": None}
    tell(folder, state, "running")
    misbehave(mood, folder, state)
    while mood == "held" and json.loads(moods.read_text()).get(name) == "held" and time.time() < state["started"] + 60:
        time.sleep(0.01)
    for step in range(first + 1, steps + 1):
        time.sleep(pause(mood, step))
        state |= {"step": step, "loss": 1 / step, "updated": time.time()}
        tell(folder, state, "running")
        print(f"step {step} of {steps}", flush=True)
        if stopped:
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_text(str(step))
            tell(folder, state, "stopped")
            end(folder, name)
            sys.exit(143)
    finish(job, folder)
    tell(folder, state, "done")
    end(folder, name)


def tell(folder, state, phase, why=None):
    (folder / ".state").write_text(json.dumps({**state, "phase": phase, "why": why}))
    (folder / ".state").rename(folder / "state.json")


def pause(mood, step):
    return 0.05 if mood in ("slow", "deaf") or (mood == "slow at first" and step > 1) else 0.001


def begin(folder, name, first, mood):
    words = {word: os.environ.get(word) for word in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID")}
    note(folder, {"name": name, "at": time.time(), "what": "begin", "first": first, "mood": mood, **words})


def end(folder, name):
    note(folder, {"name": name, "at": time.time(), "what": "end"})


def note(folder, line):
    with (folder.parent / "seen.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def misbehave(mood, folder, state):
    if mood == "fail":
        print("a line before\nout of luck", flush=True)
        tell(folder, state, "failed", "out of luck")
        sys.exit(1)
    if mood == "die":
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if mood == "silent":
        sys.exit(0)
    if mood in ("disk", "gpu", "memory"):
        said = {
            "disk": "OSError: [Errno 28] No space left on device",
            "gpu": "RuntimeError: CUDA error: GPU is lost",
            "memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        }
        print(said[mood], flush=True)
        sys.exit(1)


def finish(job, folder):
    part = folder / "part"
    part.mkdir(exist_ok=True)
    (part / "config.json").write_text("{}")
    (part / "model.safetensors").write_bytes(b"weights")
    stamp = {**job, "steps": job["settings"]["steps"], "last_loss": 0.5}
    (part / "finetune.json").write_text(json.dumps(stamp))
    Path(job["out"]).parent.mkdir(parents=True, exist_ok=True)
    part.rename(job["out"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
