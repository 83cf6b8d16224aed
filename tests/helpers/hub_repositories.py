"""Repositories of a Hub that is played: commits, branches, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field

TOKEN = "hf_" + "t" * 34
WEIGHTS = re.compile(r"\.(safetensors|bin|gguf|model)$")


@dataclass
class Fault:
    """What goes wrong at the requests that match: an answer of that status, or a connection that is cut.

    Args:
        request: A pattern for `METHOD path`.
        status: The answer; None cuts the connection once `after_bytes` of the body have passed.
        times: So often, and never again.
        headers: Of the answer.
    """

    request: str
    status: int | None = None
    times: int = 1
    after_bytes: int = 0
    headers: dict = field(default_factory=dict)


@dataclass
class Repository:
    """Commits, each the whole content by path, and branches, tags and pull requests, each a commit."""

    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False

    def find(self, revision):
        """The commit of a revision; None where there is none."""
        return revision if revision in self.commits else self.branches.get(revision)

    def commit(self, branch, files):
        """Set a branch's content, and return the commit."""
        facts = [self.branches.get(branch), sorted((name, digest(data)) for name, data in files.items())]
        commit = hashlib.sha1(json.dumps(facts).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit


def digest(data):
    return hashlib.sha256(data).hexdigest()


def is_large(path, data):
    return WEIGHTS.search(path) is not None or len(data) > 10_000_000


def git_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
