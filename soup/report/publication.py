"""What of a soup goes onto the Hub: its files, and what is changed or left out so that nothing private is there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from soup.checkpoints.adapter import ADAPTER_CONFIG, Adapter
from soup.checkpoints.card import CARD
from soup.checkpoints.carried_files import MAX_SIDE_FILE_BYTES, TOKENIZER, matches
from soup.checkpoints.hub import HubId
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.weight_files import INDEX, is_adapter
from soup.errors import CheckpointError, JournalError, OutputError
from soup.evaluation.run_directory import RunDirectory
from soup.merging.model_card import model_card
from soup.merging.published_recipe import published
from soup.merging.recipe import Recipe
from soup.merging.soup_files import RECIPE_KEY
from soup.report.page.document import run_document
from soup.report.page.render import render_page
from soup.report.page.run_record import RunRecord
from soup.support.json_text import parse_json_object, read_text
from soup.support.options import option_name
from soup.support.text import bullet_list, has_secret, public_text
from soup.support.yaml_text import parse_yaml

__all__ = ["Publication"]

RECIPE, REPORT, NUMBERS = "recipe.yaml", "report.html", "report.json"
_ORIGINS = ("_name_or_path", "name_or_path")
"""Keys under which transformers wrote where a checkpoint once lay; nothing reads them."""


@dataclass(frozen=True)
class Publication:
    """What is published of a soup.

    Args:
        recipe: The soup's, with paths of this machine.
        files: The content of each file, by its path in the repository; weights by where they lie.
        left_out: What else lies beside the soup.
        remarks: What the user should know before.
    """

    recipe: Recipe
    files: Mapping[str, Path | bytes]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def card(self) -> str:
        """The model card."""
        card = self.files[CARD]
        assert isinstance(card, bytes)
        return card.decode()

    @property
    def public_names(self) -> tuple[str, ...]:
        """The ingredients' names, without folders of this machine."""
        return published(self.recipe).names

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    @classmethod
    def of(cls, out: Path, repository: str, run_dir: Path | None = None, *, with_report: bool = True) -> Publication:
        """Gather what is published, and check it.

        Args:
            out: The soup.
            repository: Its name on the Hub.
            run_dir: The run that chose it; None: the one beside its pool, if it is there.
            with_report: Whether the run's report goes along, without the questions.

        Raises:
            OutputError: It is no soup, or something private is in its files; all such places are listed.
            CheckpointError: Its weights are damaged, or not those that its recipe made.
        """
        if not (out / RECIPE).is_file():
            raise OutputError(f"{out}: no {RECIPE} there. What is pushed is a soup, the directory that a merge wrote.")
        recipe = Recipe.read(out / RECIPE)
        remarks: list[str] = []
        with Adapter(out) if is_adapter(out) else Checkpoint(out) as soup:
            _refuse_other_weights(soup, recipe)
            files: dict[str, Path | bytes] = {name: out / name for name in soup.files}
            files |= {name: _side_file(out / name, remarks) for name in _beside(soup)}
            files[RECIPE] = published(recipe).text(out).encode()
            report = _report(recipe, repository, run_dir, remarks) if with_report else {}
            files |= {**report, CARD: _card(soup, recipe, repository, remarks, has_report=bool(report)).encode()}
            left_out = tuple(name for name in soup.side_files.left_out if name not in files)
        _refuse_private(files, recipe, out)
        return cls(recipe, dict(sorted(files.items())), left_out, tuple(remarks))


def _beside(soup: Checkpoint) -> list[str]:
    names = [name for name in soup.side_files.carried if name != CARD]
    if isinstance(soup, Adapter):
        return sorted({*names, ADAPTER_CONFIG})
    return [*names, *([INDEX] if soup.sharded else [])]


def _refuse_other_weights(soup: Checkpoint, recipe: Recipe) -> None:
    """Refuse weights that another recipe made, and an adapter whose base nobody else has."""
    made_by = {soup.metadata(file).get(RECIPE_KEY) for file in soup.files}
    if made_by != {recipe.digest}:
        raise CheckpointError(
            f"{soup.path}: its weights were not made by its {RECIPE}: expected {recipe.digest} in their headers, found "
            f"{', '.join(map(str, made_by))}. Make the soup again: soup merge {soup.path / RECIPE} -o OUT"
        )
    base = soup.base_location if isinstance(soup, Adapter) else None
    if base is not None and (HubId.parse(base) is None or Path(base).exists()):
        raise OutputError(
            f"{soup.path}: an adapter on {base}, which is not on the Hub, so that nobody else could use it. Make the "
            f"soup again with {option_name('base')} ORG/NAME, or as a whole model."
        )


def _side_file(path: Path, remarks: list[str]) -> bytes:
    """Return the content of a file beside the weights, of whose origins the last name alone is left."""
    data = read_text(path, CheckpointError, MAX_SIDE_FILE_BYTES)
    if path.suffix != ".json" or not any(f'"{key}"'.encode() in data for key in _ORIGINS):
        return data
    try:
        document = parse_json_object(data, path, CheckpointError)
    except CheckpointError:
        return data
    if not _cut_origins(document):
        return data
    remarks.append(f"{path.name}: of the folder that it came from, the last name alone is published")
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _cut_origins(document: dict[str, object]) -> bool:
    """Cut paths of this machine to their last name; returns whether there was one."""
    changed = False
    for key, value in document.items():
        if isinstance(value, dict):
            changed = _cut_origins(value) or changed
        elif key in _ORIGINS and isinstance(value, str) and Path(value).name != value and _is_local(value):
            document[key], changed = Path(value).name, True
    return changed


def _is_local(location: str) -> bool:
    return HubId.parse(location) is None or Path(location).exists()


def _report(recipe: Recipe, title: str, run_dir: Path | None, remarks: list[str]) -> dict[str, bytes]:
    """Return the page of the run that chose the soup, and its numbers; nothing where that run is not here."""
    run = RunDirectory.choose(run_dir, [share.path for share in recipe.ingredients]).path
    try:
        record = RunRecord.read(run)
    except JournalError:
        if run_dir is not None:
            raise
        remarks.append(f"no report: {run} is no run's directory; {option_name('run_dir')} names the one that chose it")
        return {}
    if recipe.digest not in {search.digest for search in record.searches}:
        if run_dir is not None:
            raise OutputError(f"{run}: no search of this run came to this soup ({recipe.digest}).")
        remarks.append(f"no report: no search in {run} came to this soup; {option_name('run_dir')} names the right one")
        return {}
    document = {**run_document(run, with_images=False), "questions": [], "title": title}
    numbers = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return {REPORT: render_page(document).encode(), NUMBERS: numbers.encode()}


def _card(soup: Checkpoint, recipe: Recipe, repository: str, remarks: list[str], *, has_report: bool) -> str:
    """Return the soup's card, as it may have been edited since, with the name that the model has on the Hub."""
    path, name = soup.path / CARD, repository.partition("/")[2]
    if path.is_file():
        text = read_text(path, CheckpointError, MAX_SIDE_FILE_BYTES).decode(errors="replace")
    else:
        text = model_card(recipe, None, soup.config, adapter_error=0.0 if isinstance(soup, Adapter) else None)
    opening, _, rest = text.partition("---\n")
    front, closing, body = rest.partition("\n---\n")
    fields = parse_yaml(front, path, OutputError) if not opening and closing else None
    if not isinstance(fields, dict):
        raise OutputError(f"{path}: expected a card that begins with its metadata between two lines of ---.")
    if isinstance(fields.get("model-index"), list):
        index = [{**entry, "name": name} for entry in fields["model-index"] if isinstance(entry, dict)]
        front = yaml.safe_dump({**fields, "model-index": index}, sort_keys=False).rstrip("\n")
    for key in ("license", "base_model"):
        if key not in fields:
            remarks.append(f"the card names no {key}: {_ADVICE[key]}")
    link = f"\n[{REPORT}]({REPORT}) tells how it was chosen.\n" if has_report and REPORT not in body else ""
    return f"---\n{front}\n---\n{body}{link}"


_ADVICE = {
    "license": "add it to the soup's README.md",
    "base_model": "no ingredient, base or ingredient's card names a model of the Hub; add it to the soup's README.md",
}


def _refuse_private(files: Mapping[str, Path | bytes], recipe: Recipe, out: Path) -> None:
    """Refuse to publish folders of this machine and keys.

    Raises:
        OutputError: with the file and line of each.
    """
    local = [part.path for part in (*recipe.ingredients, *filter(None, [recipe.base])) if Path(part.path).is_absolute()]
    folders = {Path.cwd(), out.absolute(), *map(Path, local), *(Path(path).parent for path in local)}
    home_folders = {
        str(Path.home()),
        *(str(folder) for folder in folders if len(folder.parts) > 2),
    }  # /tmp and /data are anyone's
    names = sorted(folder for folder in home_folders if folder != "/")
    private = re.compile(f"(?:{'|'.join(map(re.escape, names))})(?![\\w.-])")
    places = [
        f"{name}, line {number}: {public_text(line.strip()):.60}"
        for name, content in files.items()
        if isinstance(content, bytes)
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1)
        if private.search(line) or (not matches(name, TOKENIZER) and has_secret(line))
    ]
    if places:
        raise OutputError(
            f"{out}: names folders of this machine, or holds keys, in what would be published:\n{bullet_list(places)}\n"
            "Edit these files, and push again."
        )
