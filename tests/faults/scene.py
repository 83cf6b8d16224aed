"""Where faults are injected: a pool, a judge and a recipe, and the contract that holds after each fault."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from tests.faults.points import COMMANDS, EVALUATIONS, KINDS, Point
from tests.helpers.injected_faults import EVERY, Fault
from tests.helpers.toy_pools import calls, debris, make_judge, make_pool, tree


class Scene:
    """A pool, a judge and a recipe in a folder, and what each command comes to where nothing goes wrong."""

    def __init__(self, folder, soup):
        self.folder, self.soup = Path(folder), soup
        make_pool(self.folder / "ckpts", shards=2)
        make_judge(self.folder / "judge")
        soup(*COMMANDS["average"], cwd=folder)
        shutil.move(self.folder / "out", self.folder / "made")
        self.pool = tree(self.folder / "ckpts")
        self.clear()
        self._undisturbed = {}

    def clear(self):
        """Remove what runs made, and restore the pool."""
        for name in ("out", ".out.partial", ".out.old", ".out.lock", "ckpts.soup", "judge/calls.txt"):
            remove(self.folder / name)
        self.restore_pool()

    def restore_pool(self):
        for name, data in self.pool.items():
            path = self.folder / "ckpts" / name
            if path.is_symlink() or not path.is_file():
                remove(path)
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)

    def prepare(self, command):
        """Make what the command finds there."""
        self.clear()
        if command == "average again":
            assert self.soup(*COMMANDS["average"], cwd=self.folder).code == 0

    def undisturbed(self, command):
        """How the command ends, and what it makes; run once."""
        if command not in self._undisturbed:
            self.prepare(command)
            done = self.soup(*COMMANDS[command], cwd=self.folder, fault=Fault())
            assert done.code == 0, done
            assert self.asked == EVALUATIONS.get(command, 0)
            self._undisturbed[command] = done, self.made(command, done)
        return self._undisturbed[command]

    def made(self, command, done):
        """What a command is for: the soup, or its answer."""
        return self.scores() if command == "eval" else tree(self.folder / "out") or done.stdout

    def scores(self):
        """The journal by key; a line that is not whole counts as none."""
        journal = self.folder / "ckpts.soup" / "journal.jsonl"
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        return {line["key"]: line["value"] for line in map(json.loads, lines)}

    @property
    def asked(self):
        """How often the judge was asked."""
        return len(calls(self.folder / "judge" / "judge.py"))

    def draw(self, kind, command, dice):
        """A point of this kind in this command."""
        known = KINDS[kind]
        if not known.fault.calls:
            return Point(command, kind, known.fault)
        done, _ = self.undisturbed(command)
        places = sorted({(call, path) for call, path in done.calls if call in known.fault.calls})
        places = [(call, path) for call, path in places if path and re.search(known.files, path)]
        call, path = dice.choice(places)
        at = dice.randint(1, done.calls.count((call, path)))
        times = EVERY if known.lasts and dice.random() < 0.5 else 1
        code = known.fault.code.format(path=path)
        fault = replace(known.fault, calls=(call,), path=f"^{re.escape(path)}$", at=at, times=times, code=code)
        return Point(command, kind, fault)

    def faults_of(self, point):
        """What the command did wrong under this fault, or the same command after it; None where nothing struck it."""
        known, whole = KINDS[point.kind], self.undisturbed(point.command)[1]
        self.prepare(point.command)
        struck = self.soup(*COMMANDS[point.command], cwd=self.folder, fault=point.fault)
        if not struck.was_hit and point.fault.calls:
            return None
        journaled, calls_before, left = self.scores(), self.asked, debris(self.folder)
        half = point.command not in ("check", "eval") and tree(self.folder / "out") not in ({}, whole)
        touched = tree(self.folder / "ckpts") != self.pool and not point.fault.code
        held = {
            f"it ends with one of {known.codes}": struck.code in known.codes,
            "it does not hang": not struck.hangs,
            "no trace": "Traceback" not in struck.stderr.partition("the harness failed:")[0],
            "an error names the file, or what it belongs to": struck.code != 1 or _names(struck, point.fault),
            f"it says {known.says!r}": known.says in struck.stderr,
            "no half of a soup": not half,
            "success is the whole of it": struck.code != 0 or self.made(point.command, struck) == whole,
            f"no debris, found {left}": not known.tidy or not _debris(left, struck),
            "the pool is what it was": not touched,
            "every answer but the last was journaled": len(journaled) <= calls_before <= len(journaled) + 1,
        }
        self.restore_pool()
        again = self.soup(*COMMANDS[point.command], cwd=self.folder)
        needed = EVALUATIONS.get(point.command, 0)
        held |= {
            "the second run ends well": again.code == 0,
            "it makes what an undisturbed run makes": self.made(point.command, again) == whole,
            "nothing was evaluated twice": self.asked - calls_before == needed - len(journaled),
            f"the second run clears up, found {debris(self.folder)}": debris(self.folder) == [],
        }
        return [f"{point}: not so: {what}\n{struck}\nagain: {again}" for what, holds in held.items() if not holds]


def remove(path):
    """Remove whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _names(ended, fault):
    """Whether an error names the file that failed, its checkpoint, or the output that it is a part of."""
    parts = Path(fault.path.replace("\\", "").strip("^$")).parts
    names = {"/".join(parts[:2]), Path(*parts).name.removeprefix(".").removesuffix(".new")}
    names |= {"out"} if "out" in "".join(parts[:1]) else set()
    text = ended.stdout + ended.stderr
    return ("error:" in text or "problem:" in text) and any(name in text for name in names)


def _debris(left, ended):
    """What lies about and should not: the log of a failed evaluation stays, or a folder, if that is told."""
    if "can't be removed" in ended.stderr:
        return []
    if "The whole trace:" not in ended.stderr:
        return left
    return [path for path in left if not path.startswith("ckpts.soup/scratch") or path.endswith(".safetensors")]
