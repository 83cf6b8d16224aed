"""Find plug-ins by name: those that ship, those that a package offers by an entry point, those in a user's file.

A plug-in that can't be imported is listed with the reason, and never breaks the others.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from soup.errors import EvaluatorError, RecipeError, SoupError
from soup.support.extras import missing_extra
from soup.support.open_files import real_path
from soup.support.text import did_you_mean

__all__ = [
    "ENGINES",
    "EVALUATORS",
    "METHODS",
    "STRATEGIES",
    "PluginInfo",
    "Registry",
    "code_digest",
    "code_file_digest",
    "import_plugin_modules",
    "load_object",
]

T = TypeVar("T")


@dataclass(frozen=True)
class PluginInfo:
    """One row of `soup list`: a plug-in's name, where it comes from, and the first line of its docstring.

    `broken` is why it can't be imported; None where it can. `parameters` are its options with their defaults.
    """

    name: str
    source: str
    summary: str = ""
    broken: str | None = None
    parameters: str = ""


@dataclass
class Registry:
    """The plug-ins of one kind (`strategy`, `method`) by name.

    `shipped` maps the names of soup's own to "module:attribute", imported when they are first asked for; `group` is the
    entry-point group of other packages' plug-ins, `registered` holds those of the decorator, and `error` is the class
    to raise for an unknown name.
    """

    kind: str
    group: str
    error: type[SoupError]
    shipped: dict[str, str]
    registered: dict[str, object] = field(default_factory=dict)

    def register(self, name: str) -> Callable[[T], T]:
        """Make a decorator that registers a class or function under `name`, for the rest of this process."""

        def decorate(plugin: T) -> T:
            self.registered[name] = plugin
            return plugin

        return decorate

    def get(self, name: str) -> Any:
        """Import the plug-in of that name; `FILE.py:NAME` and `package.module:NAME` are loaded from there.

        Raises:
            SoupError: Of the class `error`: no such plug-in (with the nearest name), or it can't be imported.
        """
        if ":" in name or name.endswith(".py"):
            return load_object(name, self.kind, self.error)
        if name in self.registered:
            return self.registered[name]
        location = self.shipped.get(name) or self._locations().get(name)  # entry points take a while to list
        if location is None:
            raise self.error(f"Unknown {self.kind} '{name}'.{did_you_mean(name, self.names())}")
        return load_object(location, self.kind, self.error)

    def names(self) -> list[str]:
        """List all names, sorted."""
        return sorted({*self._locations(), *self.registered})

    def entries(self) -> list[PluginInfo]:
        """Describe every plug-in, in the order of `names`; each is imported."""
        return [self._describe(name) for name in self.names()]

    def _locations(self) -> dict[str, str]:
        """Where each plug-in is defined, "module:attribute" by name; nothing is imported."""
        external = {entry_point.name: entry_point.value for entry_point in entry_points(group=self.group)}
        return {**external, **self.shipped}

    def _describe(self, name: str) -> PluginInfo:
        source = "soup" if name in self.shipped else self._locations().get(name, "this process")
        try:
            plugin = self.get(name)
        except SoupError as error:
            return PluginInfo(name, source, broken=str(error))
        summary = (plugin.__doc__ or "").strip().split("\n")[0]
        return PluginInfo(name, source, summary, parameters=_describe_parameters(plugin))


def _describe_parameters(plugin: Callable[..., object]) -> str:
    """Return `accept=gt, order=full`: a strategy's keyword-only options, a method's fields."""
    if isinstance(plugin, type) and is_dataclass(plugin):
        pairs = [(entry.name, _field_default(entry)) for entry in fields(plugin) if entry.init]
    else:
        try:
            options = inspect.signature(plugin).parameters.values()
        except (TypeError, ValueError):
            return ""  # a callable written in C
        pairs = [(option.name, option.default) for option in options if option.kind is option.KEYWORD_ONLY]
    return ", ".join(name if default in _NO_DEFAULT else f"{name}={default}" for name, default in pairs)


_NO_DEFAULT = (inspect.Parameter.empty, MISSING)


def _field_default(entry: Field[Any]) -> object:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def load_object(location: str, kind: str, error: type[SoupError]) -> Any:
    """Import the class or function that `FILE.py:NAME` or `package.module:NAME` names.

    Args:
        location: The text that the user gave.
        kind: What it is the name of (`method`, `function`), for error messages.
        error: The class of error to raise.

    Raises:
        SoupError: Of the class `error`: the file, the module or the name in it is missing, or importing it failed.
    """
    source, _, name = location.rpartition(":")
    if not source or not name:
        raise error(f"{kind} '{location}': expected FILE.py:NAME or package.module:NAME.")
    module = _load_module(source, location, kind, error)
    if not hasattr(module, name):
        public = [attribute for attribute in vars(module) if not attribute.startswith("_")]
        raise error(f"{kind} '{location}': {source} has no '{name}'.{did_you_mean(name, public)}")
    return getattr(module, name)


def _load_module(source: str, location: str, kind: str, error: type[SoupError]) -> ModuleType:
    """Import the module of a `location`; `source` is its part before the colon."""
    if source.endswith(".py") and not Path(source).is_file():
        raise error(f"{kind} '{location}': no such file: {real_path(Path(source))}")
    try:
        return _load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except KeyboardInterrupt:
        raise
    except BaseException as cause:  # a user's file may raise anything, SystemExit too
        reason = missing_extra(cause) or f"{type(cause).__name__}: {cause}{_beside(source, cause)}"
        raise error(f"{kind} '{location}': importing {source} failed: {reason}") from cause


def _beside(source: str, cause: BaseException) -> str:
    """Say what finds a module that lies beside the file that could not import it."""
    name = cause.name if isinstance(cause, ModuleNotFoundError) else None
    file = Path(source).absolute().parent / f"{name}.py"
    return f". {file} is found with {file.parent} in PYTHONPATH" if name and file.is_file() else ""


class _UncachedLoader(SourceFileLoader):
    """Compiles a file as it is now, and writes no cache beside it.

    Python's own cache knows a file by size and date: one edited within a second would run as it was before.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file's bytes."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> ModuleType:
    path = real_path(path)
    # Two files of the same name are two modules, the same file loaded twice is one, and an edited file is another: what
    # runs is then the code whose digest goes into the journal.
    content_key = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"soup_file_{path.stem}_{content_key}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_UncachedLoader(name, str(path)))
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


def code_digest(plugin: Callable[..., object]) -> str | None:
    """Digest the file that defines a class or function: that file alone, not what it imports.

    Returns:
        None for soup's own, whose changes are in the changelog, and for code that was typed into a prompt.
    """
    if plugin.__module__.partition(".")[0] == "soup":
        return None
    try:
        source = inspect.getsourcefile(plugin)
        return code_file_digest(Path(source)) if source else None
    except (TypeError, OSError):
        return None


def code_file_digest(path: Path) -> str:
    """Digest a file of code, without running it."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def import_plugin_modules(names: Iterable[str]) -> None:
    """Import modules for what they register, such as a user's own: what a worker does before its first task."""
    for name in names:
        importlib.import_module(name)


SHIPPED_STRATEGIES = (
    *("average", "cma", "exhaustive", "forward_backward", "greedy"),
    *("maximum", "mixture", "prune", "scale", "soce", "trajectory"),
)
METHODS = Registry(
    "method",
    "soup.methods",
    RecipeError,
    {
        "linear": "soup.merging.methods.linear:Linear",
        "task-arithmetic": "soup.merging.methods.task_arithmetic:TaskArithmetic",
        "ties": "soup.merging.methods.ties:Ties",
        "dare": "soup.merging.methods.dare:Dare",
        "consensus": "soup.merging.methods.consensus:Consensus",
        "model-stock": "soup.merging.methods.model_stock:ModelStock",
        "karcher": "soup.merging.methods.karcher:Karcher",
        "iso-c": "soup.merging.methods.iso_c:IsoC",
        "swudi": "soup.merging.methods.swudi:Swudi",
        "knots": "soup.merging.methods.knots:Knots",
    },
)
STRATEGIES = Registry(
    "strategy",
    "soup.strategies",
    RecipeError,
    {name.replace("_", "-"): f"soup.search.strategies.{name}:{name}" for name in SHIPPED_STRATEGIES},
)
EVALUATORS = Registry(
    "evaluator",
    "soup.evaluators",
    EvaluatorError,
    {
        "vlmeval": "evaluators.vlmeval.harness:VLMEval",
        "lm_eval": "evaluators.lm_eval.harness:LMEval",
        "grounding": "evaluators.grounding.harness:Grounding",
        "arena": "evaluators.arena.harness:Preference",
        "python": "evaluators.python:PythonFunction",
        "command": "evaluators.command:Command",
        "function": "soup.evaluation.functions:FunctionEvaluator",
        "demo": "soup.demo.quiz:Quiz",
    },
)
ENGINES = Registry(
    "engine",
    "soup.engines",
    EvaluatorError,
    {
        "transformers": "evaluators.answering.hot_swap:HotSwap",
        "openai": "evaluators.answering.engines.openai:OpenAI",
        "serve": "evaluators.answering.engines.serve:Serve",
        "vllm": "evaluators.answering.engines.vllm:VLLM",
    },
)
evaluator = EVALUATORS.register
"""A class decorator: `@evaluator("name")` makes an evaluator known to `--eval name`, for the rest of this process."""
