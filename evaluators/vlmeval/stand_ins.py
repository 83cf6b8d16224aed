"""VLMEvalKit's `evaluate` in our hands: its own code, while what it reads, writes, asks and executes goes through us.

For as long as it runs, and no longer, the names that its modules look up stand for ours: no judge but the user's, no
process pool, no progress bar, no Excel, and cells are read as plain literals where VLMEvalKit would execute them.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import operator
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from types import ModuleType
from typing import Any

from evaluators.vlmeval.light_import import vlmeval_module

__all__ = [
    "SerialPool",
    "SharedParser",
    "SilentBar",
    "SilentLogger",
    "SteadyDice",
    "literal",
    "load_inner_imports",
    "replaced_names",
]

ROOT = "vlmeval"
OPERATIONS: Mapping[type, Callable[..., Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
MOST_BITS = 1 << 16
"""Of a power of whole numbers that is computed."""
_turn = threading.RLock()
_reading = threading.RLock()
"""Python 3.11 counts the depth of what it parses for all threads together, and fails where two are at it at once."""


def literal(text: object, *_: object) -> Any:
    """Read a text as a Python literal, or as arithmetic of numbers, such as 1/2: what stands for `eval`.

    Names that tables write for missing cells are None.

    Raises:
        ValueError: it is neither, as `eval` raises for most of what is no expression.
    """
    source = str(text).strip()
    if source in ("nan", "null", "NaN"):
        return None
    try:
        try:
            return SharedParser().literal_eval(source)
        except ValueError:
            with _reading:
                tree = ast.parse(source, mode="eval")
            return _computed(tree.body)
    except (SyntaxError, ValueError, MemoryError, RecursionError, TypeError, ArithmeticError) as cause:
        raise ValueError(f"{source[:80]!r} is no Python literal") from cause


def _computed(node: ast.expr) -> Any:
    """Return what an expression of numbers comes to, or a list of such.

    Raises:
        ValueError: it is none, or would take long to compute.
    """
    if isinstance(node, ast.List | ast.Tuple):
        values = [_computed(each) for each in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.UnaryOp | ast.BinOp) and (compute := OPERATIONS.get(type(node.op))):
        sides = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
        numbers = [_computed(side) for side in sides]
        if not all(isinstance(number, int | float | complex) for number in numbers):
            raise ValueError("an operand is no number")
        if isinstance(node.op, ast.Pow) and all(isinstance(number, int) for number in numbers):
            base, exponent = numbers
            if exponent * base.bit_length() > MOST_BITS:
                raise ValueError("a power of too many digits")
        return compute(*numbers)
    return ast.literal_eval(node)


class SharedParser:
    """Stands for `ast`: of threads that ask a judge one at a time reads a literal."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ast, name)

    def literal_eval(self, source: Any) -> Any:
        """Read a text as a Python literal."""
        with _reading:
            return ast.literal_eval(source)


class SerialPool:
    """Stands for `multiprocessing`, and for a pool of it: the same functions, called one after the other."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    Pool = property(lambda self: SerialPool)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Call the function with each item."""
        return [function(item) for item in items]

    def close(self) -> None:
        """Nothing is open."""

    join = close


class SilentBar:
    """Stands for `tqdm`, the class or the module: what it goes over, without a bar."""

    def __call__(self, items: Any = (), *_: object, **__: object) -> Any:
        """Return the items."""
        return items

    @property
    def tqdm(self) -> SilentBar:
        """The class of the module."""
        return self


class SilentLogger:
    """A logger that logs nothing."""

    def info(self, *_: object) -> None:
        """Do nothing."""

    warning = error = critical = debug = info


class SteadyDice(random.Random):
    """Stands for `random` where VLMEvalKit guesses an option: what is drawn depends on the options alone."""

    def choice(self, seq: Any) -> Any:
        """Draw one of them."""
        return random.Random(repr(seq)).choice(seq)


@contextmanager
def replaced_names(names: Mapping[str, object]) -> Iterator[None]:
    """Let names of VLMEvalKit's modules stand for others inside: `eval` for `literal`, `print` for nothing, and more.

    Names of Python itself stand for others in each of its modules.

    One at a time: the modules are the process's. Random numbers are the same in every run, too.
    """
    with _turn:
        state = random.getstate()
        random.seed(0)
        stand_ins = {"print": lambda *_, **__: None, **names, "eval": literal, "ast": SharedParser()}
        undo: list[tuple[ModuleType, str, object]] = []
        try:
            modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == ROOT]
            for module in dict.fromkeys(modules):
                present = vars(module)
                undo += [
                    (module, name, present.get(name, undo))
                    for name in stand_ins
                    if name in present or hasattr(builtins, name)
                ]
            for module, name, _ in undo:
                setattr(module, name, stand_ins[name])
            yield
        finally:
            for module, name, before in undo:
                if before is undo:
                    delattr(module, name)
                else:
                    setattr(module, name, before)
            random.setstate(state)


def load_inner_imports(data_set_class: type) -> None:
    """Import what a class's functions import only when they are called, so that no name in there escapes us.

    Raises:
        EvaluatorError: what its `evaluate` imports is not installed.
    """
    library = [base for base in data_set_class.__mro__ if base.__module__.partition(".")[0] == ROOT]
    evaluating = next(base for base in library if "evaluate" in vars(base))
    for base in library:
        for owner, function, module in _inner_imports(base.__module__, base.__name__):
            is_needed = base is evaluating and owner == base.__name__ and function in ("evaluate", "evaluate_heuristic")
            with nullcontext() if is_needed else suppress(Exception):
                vlmeval_module(module)


@cache
def _inner_imports(module_name: str, class_name: str) -> tuple[tuple[str, str, str], ...]:
    """Return class, function and module of each import within VLMEvalKit that a class's functions make.

    So do functions and classes of its module that it names, and those that they name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in VLMEvalKit's texts
        tree = ast.parse(inspect.getsource(sys.modules[module_name]))
    package = module_name.rpartition(".")[0]
    scopes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    imports, waiting = [], [class_name]
    while waiting:
        if (scope := scopes.pop(waiting.pop(), None)) is None:
            continue
        waiting += [node.id for node in ast.walk(scope) if isinstance(node, ast.Name)]
        owner = scope.name if isinstance(scope, ast.ClassDef) else ""
        body: list[ast.stmt] = scope.body if owner else [scope]
        for function in (node for node in body if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith(f"{ROOT}.")):
                    name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                    imports.append((owner, function.name, name.removeprefix(f"{ROOT}.")))
    return tuple(imports)
