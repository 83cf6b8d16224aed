"""Where the work of a run lives.

RUN/journal.jsonl    every score, one line each
RUN/digests.json     the pool's digests, so that it is read once
RUN/scratch/         candidates on disk while they are evaluated; a failed evaluation's log stays
RUN/answers/         what a model answered, so that an evaluation that stopped asks only for the rest
RUN/logs/            what workers and engines print
RUN/soups/           what each search came to
RUN/sweeps/          what each line between two models came to
RUN/pool.json        what `soup check` measured
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from soup.checkpoints.hub import is_hub_id
from soup.checkpoints.weight_files import looks_like_checkpoint
from soup.errors import OutputError
from soup.evaluation.journal import FILE_NAME
from soup.merging.pool_folders import list_locations
from soup.merging.recipe import Recipe
from soup.support.open_files import real_path
from soup.support.options import option_name
from soup.support.removal import remove_tree

__all__ = ["ERROR_LOG", "Kind", "RunDirectory", "directory_kind", "refuse_other_kind", "strategy_file_name"]

ERROR_LOG = "error.log"
"""What a failed evaluation leaves in its folder of the scratch: the whole trace."""


class Kind(StrEnum):
    """What a directory was made for, as an error calls it."""

    ARENA = "an arena"
    STUDY = "a study"
    JOBS = "the jobs of a pool of fine-tunes"
    RUN = "the run of a search"
    CHECKPOINT = "a checkpoint"


_MARKS: dict[Kind, Callable[[Path], bool]] = {
    Kind.ARENA: lambda path: (path / "arena.json").is_file(),
    Kind.STUDY: lambda path: (path / "study.json").is_file(),
    Kind.JOBS: lambda path: any(path.glob("*/state.json")) and any(path.glob("*/job.json")),
    Kind.RUN: lambda path: any((path / name).exists() for name in (FILE_NAME, "pool.json")),
    Kind.CHECKPOINT: looks_like_checkpoint,
}
"""In their order: an arena has a journal, too."""


def directory_kind(path: Path) -> Kind | None:
    """Say what a directory was made for; None where it is new, or has no mark of any of these."""
    return next((kind for kind, is_marked in _MARKS.items() if is_marked(path)), None)


def refuse_other_kind(path: Path, expected: Kind) -> None:
    """Refuse a directory that was made for something else, before files of two kinds lie in it.

    Raises:
        OutputError: it was.
    """
    if (kind := directory_kind(path)) not in (None, expected):
        raise OutputError(
            f"{path}: expected {expected} or a new folder, found {kind}. Choose another {option_name('run_dir')}."
        )


def strategy_file_name(strategy: str) -> str:
    """Return a strategy's name as a part of a path: `my.py:fn` is `my.py_fn`."""
    return strategy.replace(":", "_").replace("/", "_")


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run, by what they hold."""

    path: Path

    @classmethod
    def choose(cls, named: str | Path | None, locations: str | Path | Sequence[str | Path]) -> RunDirectory:
        """Return the directory that the user names, else one beside the pool: `ckpts.soup/` for `ckpts/`.

        `pool.soup` where the pool's folder is the Hub, or holds the working directory.

        Args:
            named: What the user names, if anything.
            locations: The pool's directory, or its checkpoints one by one.

        Raises:
            OutputError: the directory was made for something else.
        """
        run = cls(Path(named) if named is not None else _beside(locations))
        refuse_other_kind(run.path, Kind.RUN)
        return run

    @property
    def journal(self) -> Path:
        """The file of all scores."""
        return self.path / FILE_NAME

    @property
    def digests(self) -> Path:
        """The file of remembered digests."""
        return self.path / "digests.json"

    @property
    def scratch(self) -> Path:
        """The folder of candidates that are being evaluated."""
        return self.path / "scratch"

    @property
    def logs(self) -> Path:
        """The folder of the workers' and engines' logs."""
        return self.path / "logs"

    @property
    def results(self) -> Path:
        """The folder of what strategies came to."""
        return self.path / "soups"

    def result(self, strategy: str, number: int = 1) -> Path:
        """Return the file of what a search by a strategy came to; of several the first has number 1."""
        return self.results / f"{strategy_file_name(strategy)}{'' if number == 1 else f'-{number}'}.json"

    @property
    def result_files(self) -> list[Path]:
        """The files of what searches came to, those of one strategy by their numbers."""
        return sorted(self.results.glob("[!.]*.json"), key=_place_of_result)

    @property
    def sweeps(self) -> Path:
        """The folder of what lines between models came to."""
        return self.path / "sweeps"

    def sweep(self, a: str, b: str) -> Path:
        """Return the file of what the line from A to B came to."""
        return self.sweeps / f"{strategy_file_name(a)}..{strategy_file_name(b)}.json"

    @property
    def pool_check(self) -> Path:
        """The file of what `soup check` measured."""
        return self.path / "pool.json"

    def candidate(self, recipe: Recipe) -> Path:
        """Return the scratch folder of a recipe's candidate."""
        return self.scratch / _short(recipe.digest)

    def answers(self, recipe: Recipe) -> Path:
        """Return the folder of what a recipe's candidate answered."""
        return self.answers_of(recipe.digest)

    def answers_of(self, recipe_digest: str) -> Path:
        """Return the folder of what the candidate of a recipe of that digest answered."""
        return self.path / "answers" / _short(recipe_digest)

    def clear_scratch(self) -> None:
        """Remove what a killed run left; only for the holder of the journal's lock."""
        self.clear(self.scratch)

    def clear_unfinished(self) -> None:
        """Remove what workers left that were ended within an evaluation; of one that had failed its log stays."""
        for checkpoint in self.scratch.glob("*/checkpoint"):
            home = checkpoint.parent
            self.clear(checkpoint if any(home.rglob(ERROR_LOG)) else home)

    @staticmethod
    def clear(folder: Path) -> None:
        """Remove a folder of the scratch, as far as it can be removed."""
        if folder.is_dir():  # what is none, such as a pipe, would be waited for
            remove_tree(folder)

    def refuse_as_output(self, out: Path) -> None:
        """Refuse a destination for a soup that would be in the run's way, or be removed with its scratch.

        Raises:
            OutputError: `out` is such a place.
        """
        run, soup = real_path(self.path), real_path(out)
        if run.is_relative_to(soup) or any(soup.is_relative_to(run / name) for name in ("scratch", "soups")):
            raise OutputError(
                f"{out}: is where the run keeps its own files ({option_name('run_dir')} {self.path}). "
                f"Choose another {option_name('out')}."
            )


def _place_of_result(path: Path) -> tuple[str, int]:
    """Return the strategy's part of a file's name, and its number."""
    name, _, number = path.stem.rpartition("-")
    return (name, int(number)) if name and number.isdecimal() else (path.stem, 1)


def _short(recipe_digest: str) -> str:
    return recipe_digest[7:19]


def _beside(locations: str | Path | Sequence[str | Path]) -> Path:
    """Return the place beside the folder that most of the locations lie in, in whatever order they were typed.

    Of several with as many it is the deepest: a pool lies below where its base does.
    """
    paths = list_locations(locations)
    places = [place for path in paths if (place := _beside_folder_of(path, is_alone=len(paths) == 1))]
    count = Counter(places)
    return max(count, key=lambda place: (count[place], len(place.parts), place)) if count else Path("pool.soup")


def _beside_folder_of(location: str | Path, *, is_alone: bool) -> Path | None:
    """Return the place beside a location's folder; None where the folder is the Hub, or what the user works in."""
    folder = Path(location).absolute()
    if is_hub_id(str(location)) and not folder.exists():
        return None
    folder = folder.parent if not is_alone or looks_like_checkpoint(folder) else folder
    return None if Path.cwd().is_relative_to(folder) else folder.with_name(f"{folder.name}.soup")
