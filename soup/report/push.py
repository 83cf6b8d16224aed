"""Publish a soup on the Hub: weights, recipe, report and card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soup.checkpoints.hub import HubId
from soup.checkpoints.hub_errors import hub_errors
from soup.checkpoints.hub_upload import Target, Upload, upload
from soup.errors import OutputError
from soup.report.publication import Publication
from soup.support.options import option_name

__all__ = ["Push", "Pushed"]


@dataclass(frozen=True)
class Pushed:
    """What was published, and where."""

    target: Target
    publication: Publication
    upload: Upload

    def as_json(self) -> dict[str, object]:
        """Return the document that `--json` prints."""
        sent = {"commit": self.upload.commit, "url": self.upload.url, "removed": list(self.upload.removed)}
        return {**_as_json(self.target, self.publication), **sent}


@dataclass(frozen=True)
class Push:
    """A push about to happen: all that can be checked without the Hub has been checked.

    Args:
        target: Where the soup goes.
        publication: What goes there.
    """

    target: Target
    publication: Publication

    @classmethod
    def prepare(cls, out: Path, target: Target, run_dir: Path | None = None, *, with_report: bool = True) -> Push:
        """Check target and soup; see `Publication.of`, whose other arguments these are.

        Raises:
            OutputError: The target is no repository's name, or contradicts itself.
        """
        hub_id = HubId.parse(target.repository)
        if hub_id is None or target.repository != hub_id.name:
            raise OutputError(f"{target.repository}: expected a repository of the Hub, ORG/NAME.")
        if target.pull_request and (target.branch or target.private):
            raise OutputError(
                f"{option_name('pr')}: a pull request goes to the default branch of a repository that is there: leave "
                f"{option_name('revision')} and {option_name('private')} out."
            )
        return cls(target, Publication.of(out, target.repository, run_dir, with_report=with_report))

    def run(self, on_file: Callable[[str], None] = lambda name: None) -> Pushed:
        """Send it; what is there already is not sent again.

        Args:
            on_file: Called with each file of weights before it is sent.

        Raises:
            OutputError: The Hub refused it, or can't be reached.
        """
        message = f"Soup of {', '.join(self.publication.public_names)}"
        with hub_errors(self.target.repository, OutputError):
            sent = upload(self.target, self.publication.files, message[:200], on_file)
        return Pushed(self.target, self.publication, sent)

    def as_json(self) -> dict[str, object]:
        """Return the document that `--dry-run --json` prints."""
        return {**_as_json(self.target, self.publication), "card": self.publication.card}


def _as_json(target: Target, publication: Publication) -> dict[str, object]:
    return {
        "schema": 1,
        "repository": target.repository,
        "private": target.private,
        "revision": target.branch,
        "pull_request": target.pull_request,
        "recipe": publication.recipe.digest,
        "files": [{"path": name, "bytes": count} for name, count in publication.sizes.items()],
        "left_out": list(publication.left_out),
        "remarks": list(publication.remarks),
    }
