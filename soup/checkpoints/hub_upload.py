"""Files onto the Hub, in one commit: what is there already, by the hash of its content, is not sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soup.checkpoints.adapter import ADAPTER_CONFIG
from soup.checkpoints.card import CARD
from soup.checkpoints.hub_errors import explain_hub_error, retried
from soup.errors import OutputError
from soup.support.options import option_name

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

__all__ = ["Target", "Upload", "upload"]

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_MARK = "recipe.yaml"
"""What tells that a repository holds a soup."""


@dataclass(frozen=True)
class Target:
    """Where files go.

    Args:
        repository: `ORG/NAME`; it is made where it is not there.
        private: Whether it must be private.
        branch: The branch; None: the default one. It is made where it is not there.
        pull_request: Whether the commit goes into a new pull request.
    """

    repository: str
    private: bool = False
    branch: str | None = None
    pull_request: bool = False


@dataclass(frozen=True)
class Upload:
    """What came of it: the commit, the page of the commit or pull request, and the files that were removed."""

    commit: str
    url: str
    removed: tuple[str, ...]


def upload(
    target: Target, files: Mapping[str, Path | bytes], message: str, on_file: Callable[[str], None] = lambda name: None
) -> Upload:
    """Send files, and remove other weights from the repository, which a loader could take for theirs.

    Args:
        target: Where they go.
        files: The content of each, by its path there.
        message: Of the commit.
        on_file: Called with each file of weights before it is sent.

    Raises:
        OutputError: The repository is public and should be private, or holds a model that is no soup; or the Hub
            refuses the card's metadata.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    if isinstance(card := files.get(CARD), bytes):
        _check_card(target, card)
    if not target.pull_request:
        retried(lambda: _make_repository(api, target))
    _refuse_other_model(api, target)
    large = [CommitOperationAdd(name, path) for name, path in files.items() if isinstance(path, Path)]
    for file in large:
        on_file(file.path_in_repo)
        _send(api, target, file)
    request = api.create_pull_request(target.repository, title=message) if target.pull_request else None
    branch = request.git_reference if request else target.branch
    attempts = iter([large])

    def commit() -> Upload:
        """Make the commit; what a lost answer hides is seen when it is made again from new operations."""
        sent = next(attempts, None) or [CommitOperationAdd(file.path_in_repo, file.path_or_fileobj) for file in large]
        small = [CommitOperationAdd(name, data) for name, data in files.items() if isinstance(data, bytes)]
        stale = _stale(api, target.repository, branch, files)
        created = api.create_commit(target.repository, [*sent, *small, *stale], commit_message=message, revision=branch)
        return Upload(
            created.oid,
            request.url if request else created.commit_url,
            tuple(operation.path_in_repo for operation in stale),
        )

    try:
        return retried(commit, if_cut=True)
    except Exception as error:  # the client raises many kinds
        if request is None:
            raise
        raise OutputError(
            f"{target.repository}: {explain_hub_error(error)}. The pull request {request.url} is open: "
            f"{option_name('revision')} {branch} in place of {option_name('pr')} fills it."
        ) from error


def _check_card(target: Target, card: bytes) -> None:
    """Have the Hub check the card's metadata before anything is sent."""
    from huggingface_hub import RepoCard

    try:
        RepoCard(card.decode(), ignore_metadata_errors=True).validate("model")
    except ValueError as error:
        raise OutputError(
            f"{target.repository}: the Hub refuses the metadata of {CARD}: {explain_hub_error(error)}. Edit that of "
            "the soup, and push again."
        ) from error


def _make_repository(api: HfApi, target: Target) -> None:
    api.create_repo(target.repository, private=target.private or None, exist_ok=True)
    if target.private and not api.model_info(target.repository).private:
        raise OutputError(
            f"{target.repository}: is public, and {option_name('private')} was asked for. Make it private on its "
            "page of the Hub, or choose another repository."
        )
    if target.branch and not target.branch.startswith("refs/"):
        api.create_branch(target.repository, branch=target.branch, exist_ok=True)


def _refuse_other_model(api: HfApi, target: Target) -> None:
    """Refuse to put a soup in the place of a model that is none, but in a pull request."""
    names = retried(lambda: api.list_repo_files(target.repository, revision=target.branch))
    proposed = target.pull_request or (target.branch or "").startswith("refs/pr/")
    if not proposed and _MARK not in names and any(name.endswith(_WEIGHTS) for name in names):
        raise OutputError(
            f"{target.repository}: holds a model that is no soup ({_MARK} is not there). Choose another repository, a "
            f"branch of its own ({option_name('revision')}), or propose it ({option_name('pr')})."
        )


def _send(api: HfApi, target: Target, file: CommitOperationAdd) -> None:
    def send() -> None:
        api.preupload_lfs_files(
            target.repository, [file], revision=target.branch, create_pr=target.pull_request, free_memory=False
        )

    retried(send, if_cut=True)


def _stale(
    api: HfApi, repository: str, branch: str | None, files: Mapping[str, Path | bytes]
) -> Sequence[CommitOperationDelete]:
    """Return what removes weights of another model: a loader looks for weights in the repository's root."""
    from huggingface_hub import CommitOperationDelete

    names = api.list_repo_files(repository, revision=branch)
    stale = [name for name in names if name not in files and "/" not in name]
    return [CommitOperationDelete(name) for name in stale if name.endswith(_WEIGHTS) or name == ADAPTER_CONFIG]
