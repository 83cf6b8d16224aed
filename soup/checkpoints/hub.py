"""Checkpoints by Hub id: `organisation/name`, with `@revision` and `:folder` after it where they are meant.

Only the files that soup reads are fetched, into the Hub's own cache: a download that was cut goes on where it ended.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soup.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, missing_weights
from soup.checkpoints.carried_files import is_side_file
from soup.checkpoints.hub_downloads import run_download
from soup.checkpoints.hub_errors import hub_errors, retried
from soup.checkpoints.weight_files import INDEX, WEIGHTS, choose_weights, read_index
from soup.errors import CheckpointError

__all__ = ["HubId", "fetch_checkpoint", "is_hub_id"]

_HUB_ID = re.compile(
    r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./+-]+))?(?::(?P<folder>[\w./+-]*[\w+-]))?"
)
_PAGE = re.compile(
    r"https://(?:huggingface\.co|hf\.co)/(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)"
    r"(?:/tree/(?P<revision>[\w.+-]+)(?:/(?P<folder>[\w./+-]*[\w+-]))?)?/?"
)
"""The address of a repository's page, as it is copied from a browser."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FIRST = ("config.json", ADAPTER_CONFIG, INDEX)
"""What tells which other files are needed."""
_SHOWN = 8
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_BESIDE = ("README.md", "finetune.json", "args.json")
"""What tells of a checkpoint's licence and of what it was trained from."""


@dataclass(frozen=True)
class HubId:
    """A checkpoint on the Hub: a repository, and a branch, tag or commit and a folder of it where they are named."""

    name: str
    revision: str | None = None
    folder: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """Read an id, or the address of its page; None where the text has neither form."""
        match = _HUB_ID.fullmatch(text) or _PAGE.fullmatch(text)
        if match is None or ".." in re.split(r"[@:/]", text):
            return None
        return cls(match["name"], match["revision"], match["folder"])

    @property
    def is_pinned(self) -> bool:
        """Whether it names a commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def label(self) -> str:
        """The name without its organisation, with what follows it; of a commit the first digits."""
        revision = self.revision and (self.revision[:8] if self.is_pinned else self.revision)
        return str(replace(self, name=self.name.partition("/")[2], revision=revision))

    def __str__(self) -> str:
        revision, folder = self.revision and f"@{self.revision}", self.folder and f":{self.folder}"
        return f"{self.name}{revision or ''}{folder or ''}"


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a Hub id; callers let a local directory of that name come first."""
    return HubId.parse(text) is not None


def fetch_checkpoint(text: str) -> tuple[Path, str]:
    """Download a checkpoint from the Hub, as far as it is not in the cache yet: what soup reads, and nothing else.

    Args:
        text: Its id.

    Returns:
        Its local directory, and its id with the commit as the revision.

    Raises:
        CheckpointError: The Hub could not be reached, or has no such checkpoint, or one that is no whole model or
            adapter in safetensors, which is told before its weights are fetched.
    """
    hub_id = HubId.parse(text)
    assert hub_id is not None, f"{text}: no Hub id"
    path = Path(hub_id.name)  # perhaps a path was meant, and is mistyped
    remark = f"As a path: {path.parent}/ is here, and holds no {path.name}." if path.parent.is_dir() else ""
    with hub_errors(text, CheckpointError, remark):
        snapshot = _fetch(hub_id, _FIRST)
        pinned = replace(hub_id, revision=snapshot.name)  # a snapshot's folder is named by its commit
        names = _list_files(pinned)
        beside = [name for name in names if is_side_file(name) or name in _BESIDE]
        weights = _choose(hub_id, names, snapshot / (hub_id.folder or ""))
        _fetch(pinned, [*beside, *weights])
    return snapshot / (hub_id.folder or ""), str(pinned)


def _fetch(hub_id: HubId, names: Sequence[str]) -> Path:
    """Fetch files by their paths in the checkpoint, and return the snapshot's directory."""
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(f"{hub_id.folder}/{name}" if hub_id.folder else name) for name in names]

    def download(bar: type[Any]) -> Path:
        name, revision = hub_id.name, hub_id.revision
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=bar))

    return retried(lambda: run_download(hub_id.label, download))


def _list_files(pinned: HubId) -> list[str]:
    """List the files of a checkpoint by their paths in it; the client keeps the listings of commits."""
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        names = [file.path for file in get_cached_repo_tree(pinned.name, revision=pinned.revision)]
    except CachedRepoTreeNotFoundError:
        names = HfApi().list_repo_files(pinned.name, revision=pinned.revision)
    folder = f"{pinned.folder}/" if pinned.folder else ""
    inside = sorted(name.removeprefix(folder) for name in names if name.startswith(folder))
    if not inside:
        raise CheckpointError(f"{pinned}: the repository has no folder {pinned.folder}, or is empty.")
    return inside


def _choose(hub_id: HubId, names: Sequence[str], directory: Path) -> list[str]:
    """Choose the files of weights; see `choose_weights`."""
    if ADAPTER_CONFIG in names and not {WEIGHTS, INDEX} & {*names}:
        if ADAPTER_WEIGHTS not in names:
            raise missing_weights(str(hub_id), names)
        return [ADAPTER_WEIGHTS]
    try:
        return choose_weights(str(hub_id), names, read_index(directory), [])
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_where_else(hub_id, names)}") from error


def _where_else(hub_id: HubId, names: Sequence[str]) -> str:
    """Say where a repository without weights in safetensors may have some: in its folders, or a pull request."""
    if any(name.endswith(".safetensors") and "/" not in name for name in names):
        return ""
    folders = {name.rpartition("/")[0] for name in names if name.endswith(".safetensors")}
    inside = [str(replace(hub_id, folder="/".join(filter(None, (hub_id.folder, name))))) for name in sorted(folders)]
    if inside:
        return f" Its folders hold some: {', '.join(inside[:_SHOWN])}{', ...' * (len(inside) > _SHOWN)}"
    if not any(name.endswith(_PICKLES) for name in names):
        return ""
    offered = replace(hub_id, revision="refs/pr/1")
    return f" A safetensors form is often offered as a pull request, which has a revision of its own: {offered}"
