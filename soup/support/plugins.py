"""Find things by name: what ships, what a package offers through entry points, what a user wrote in a file.

One that fails to import is listed as broken with its reason, and never breaks the others.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from soup.errors import EvaluatorError, RecipeError, SoupError
from soup.support.text import did_you_mean

__all__ = [
    "EVALUATORS",
    "METHODS",
    "STRATEGIES",
    "PluginInfo",
    "Registry",
    "code_digest",
    "import_plugin_modules",
    "load_object",
]

T = TypeVar("T")


@dataclass(frozen=True)
class PluginInfo:
    """One row of a listing: where a thing comes from, its first sentence, and why it is broken, if it is."""

    name: str
    source: str
    summary: str = ""
    broken: str | None = None


@dataclass
class Registry:
    """The things of one kind (`strategy`, `method`) by name.

    `shipped` maps names to lazy "module:attribute" places, `group` names the entry-point group for plug-ins, and
    `error` is the class to raise for an unknown name.
    """

    kind: str
    group: str
    error: type[SoupError]
    shipped: dict[str, str]
    registered: dict[str, Any] = field(default_factory=dict)

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that makes a thing known under `name` for the rest of this process."""

        def keep(thing: T) -> T:
            self.registered[name] = thing
            return thing

        return keep

    def get(self, name: str) -> Any:
        """The thing of that name; `FILE.py:NAME` and `package.module:NAME` are loaded from there.

        Raises:
            SoupError: of the class `error`: no such thing (with the nearest name), or it can't be imported.
        """
        if ":" in name or name.endswith(".py"):
            return load_object(name, self.kind, self.error)
        if name in self.registered:
            return self.registered[name]
        place = self._places().get(name)
        if place is None:
            raise self.error(f"Unknown {self.kind} '{name}'.{did_you_mean(name, self.names())}")
        return load_object(place, self.kind, self.error)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._places(), *self.registered})

    def found(self) -> list[PluginInfo]:
        """Every thing with its source and summary; broken ones with the reason."""
        return [self._look(name) for name in self.names()]

    def _places(self) -> dict[str, str]:
        plugged = {entry.name: entry.value for entry in entry_points(group=self.group)}
        return {**plugged, **self.shipped}

    def _look(self, name: str) -> PluginInfo:
        source = "soup" if name in self.shipped else self._places().get(name, "this process")
        try:
            thing = self.get(name)
        except SoupError as error:
            return PluginInfo(name, source, broken=str(error))
        return PluginInfo(name, source, (thing.__doc__ or "").strip().split("\n")[0])


def load_object(place: str, kind: str, error: type[SoupError]) -> Any:
    """What `FILE.py:NAME` or `package.module:NAME` names.

    Raises:
        SoupError: of the class `error`: the file, the module or the name in it is missing, or importing it failed.
    """
    where, _, name = place.rpartition(":")
    if not where or not name:
        raise error(f"{kind} '{place}': expected FILE.py:NAME or package.module:NAME.")
    module = _load_module(where, place, kind, error)
    if not hasattr(module, name):
        public = [word for word in vars(module) if not word.startswith("_")]
        raise error(f"{kind} '{place}': {where} has no '{name}'.{did_you_mean(name, public)}")
    return getattr(module, name)


def _load_module(where: str, place: str, kind: str, error: type[SoupError]) -> ModuleType:
    if where.endswith(".py") and not Path(where).is_file():
        raise error(f"{kind} '{place}': no such file: {Path(where).resolve()}")
    try:
        return _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except KeyboardInterrupt:
        raise
    except BaseException as cause:  # a user's file may raise anything, SystemExit too
        raise error(f"{kind} '{place}': importing {where} failed: {type(cause).__name__}: {cause}") from cause


class _Uncached(SourceFileLoader):
    """Runs a file as it is now, and writes nothing beside it.

    Python's own cache knows a file by size and date: one edited within a second would run as it was before.
    """

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file's bytes."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    # Two files of the same name are two modules, one file asked for twice is one, and an edited file is another: what
    # runs is then the code whose digest goes into the journal.
    mark = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"soup_file_{path.stem}_{mark}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def code_digest(thing: Any) -> str | None:
    """The digest of the file that defines a class or function (of that file alone, not of what it imports).

    None for soup's own, whose changes the changelog tells, and for what was typed into a prompt.
    """
    if thing.__module__.partition(".")[0] == "soup":
        return None
    try:
        source = inspect.getsourcefile(thing)
        return "sha256:" + hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
    except (TypeError, OSError):
        return None


def import_plugin_modules(names: Iterable[str]) -> None:
    """Import modules for what they register, such as a user's own: what a worker does before its first task."""
    for name in names:
        importlib.import_module(name)


METHODS = Registry("method", "soup.methods", RecipeError, {"linear": "soup.merging.methods.linear:Linear"})
STRATEGIES = Registry(
    "strategy",
    "soup.strategies",
    RecipeError,
    {name: f"soup.search.strategies.{name}:{name}" for name in ("average", "greedy", "maximum")},
)
EVALUATORS = Registry(
    "evaluator",
    "soup.evaluators",
    EvaluatorError,
    {
        "vlmeval": "evaluators.vlmeval.harness:VLMEval",
        "lm_eval": "evaluators.lm_eval.harness:LMEval",
        "python": "evaluators.python:PythonFunction",
        "command": "evaluators.command:Command",
    },
)
