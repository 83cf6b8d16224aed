"""What tells a function of this process from others: its source, and what it holds besides.

Two functions of one source may give different scores: closures over different values, methods of different objects, a
helper or a class that was edited in another cell of a notebook.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType

__all__ = ["called_function", "function_facts"]

PROCESS = uuid.uuid4().hex
MOST_DEPTH = 20
_objects: dict[int, object] = {}  # kept, so that no other one gets their number


def function_facts(function: Callable[..., object]) -> dict[str, str]:
    """Return the digest of a function's source, and of what it holds where it holds something.

    Told apart are closed-over values, defaults, the object of a method, and what it names of its module: functions,
    classes of its own, plain values and arrays. An object is known by its class and its attributes, so that the next
    process knows it; of a module by its class alone, for it may count what it was asked. A class of the same module is
    known by its methods and values, an array by its numbers. What shows none of these (a lock, a model) is
    another one in each process, but as an attribute, where its class stands for it; of a module it is not looked at.

    Args:
        function: What is called, its source readable: a function, a method, an object with `__call__`, or a
            `functools.partial` of such.

    Raises:
        OSError: its source can't be read.
        TypeError: it is no function of Python's.
    """
    called = called_function(function)
    facts = {"code": _digest(inspect.getsource(called))}
    held = sorted([*_bound(function), *_held(called, {id(called)})])
    return facts | ({"holds": _digest(repr(held))} if held else {})


def called_function(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function or method that is called in the end: of a `functools.partial`, or of an object."""
    if isinstance(function, functools.partial):
        return called_function(function.func)
    if isinstance(function, FunctionType | MethodType | type):
        return function
    called: Callable[..., object] = getattr(function, "__call__", function)  # noqa: B004
    return called


def _bound(function: Callable[..., object]) -> Iterator[tuple[str, str]]:
    """Yield the arguments that a `functools.partial` holds, and those of one that it calls."""
    if isinstance(function, functools.partial):
        home = called_function(function).__module__
        for name, value in [*enumerate(function.args), *function.keywords.items()]:
            yield f"argument {name}", _content(value, home, set())
        yield from _bound(function.func)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _held(function: Callable[..., object], visited: set[int]) -> Iterator[tuple[str, str]]:
    """Yield what a function's score may depend on besides its source, by name."""
    home = function.__module__
    if isinstance(function, MethodType):
        yield "the object", _content(function.__self__, home, visited)
        function = function.__func__
    if not isinstance(function, FunctionType):
        return
    for number, value in enumerate(function.__defaults__ or ()):
        yield f"default {number}", _content(value, home, visited)
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"default {name}", _content(value, home, visited)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is assigned later
            yield f"closed over {name}", _content(cell.cell_contents, home, visited)
    code = function.__code__
    if code.co_name == "<lambda>":  # the source is the whole line, which may hold several
        columns = [column for *_, begin, end in code.co_positions() for column in (begin, end) if column is not None]
        yield "columns", repr((min(columns, default=0), max(columns, default=0)))
    for name in sorted(_names_in(code) & function.__globals__.keys()):
        value = function.__globals__[name]
        if id(value) not in visited and (shown := _shown(value, home, visited, with_state=False)) is not None:
            yield f"global {name}", shown


def _names_in(code: CodeType) -> set[str]:
    inside = [_names_in(part) for part in code.co_consts if isinstance(part, CodeType)]
    return {*code.co_names, *(name for names in inside for name in names)}


def _content(value: object, home: str, visited: set[int]) -> str:
    """Return what tells a value from others: what it shows, else its attributes, else which one it is."""
    if (shown := _shown(value, home, visited)) is not None:
        return shown
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, FunctionType | MethodType) and (text := _of_function(value, visited)):
        return text
    if isinstance(attributes := getattr(value, "__dict__", None), dict) and attributes:
        return repr((type(value).__module__, type(value).__qualname__, _attributes(attributes, home, visited)))
    _objects[id(value)] = value
    return f"{PROCESS} {id(value)}"


def _shown(value: object, home: str, visited: set[int], depth: int = 0, *, with_state: bool = True) -> str | None:
    """Return what tells a value from others in any process; None for what does not show it.

    Args:
        value: The value.
        home: The module whose functions, classes and objects are looked into.
        visited: The numbers of those that were; they are added.
        depth: Of containers around it.
        with_state: Whether an object is known by its attributes, too.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | PurePath):
        return repr(value)
    if depth > MOST_DEPTH:
        return None
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        items = [item for pair in value.items() for item in pair] if isinstance(value, Mapping) else list(value)
        texts = [_shown(item, home, visited, depth + 1, with_state=with_state) for item in items]
        known = [text for text in texts if text is not None]
        if len(known) < len(texts):
            return None
        return f"{type(value).__name__}{sorted(known) if isinstance(value, set | frozenset) else known}"
    if isinstance(value, functools.partial):
        return _shown((value.func, value.args, value.keywords), home, visited, depth + 1, with_state=with_state)
    if not isinstance(value, FunctionType | type):
        if (numbers := _numbers(value)) is not None:
            return numbers
        value = inspect.getattr_static(value, "__wrapped__", value)  # what `functools.cache` holds
    owner = value if isinstance(value, FunctionType | type) else type(value)
    if owner.__module__ != home:
        return None
    if id(value) in visited:
        return owner.__qualname__
    if isinstance(value, FunctionType):
        return _of_function(value, visited)
    visited.add(id(value))
    if isinstance(value, type):
        return repr((value.__qualname__, _members(value, home, visited)))
    if not with_state:
        return repr((home, owner.__qualname__, _shown(owner, home, visited, depth + 1)))
    state = object.__getstate__(value)  # a pair where the class has slots
    parts = state if isinstance(state, tuple) else (state,)
    kept = {name: each for part in parts if part for name, each in part.items()}
    return repr((home, owner.__qualname__, _attributes(kept, home, visited), _shown(owner, home, visited, depth + 1)))


def _of_function(function: FunctionType | MethodType, visited: set[int]) -> str | None:
    """Return a function's source and what it holds; None where the source can't be read."""
    if id(function) in visited:
        return function.__qualname__
    visited.add(id(function))
    with suppress(OSError, TypeError):
        return repr((inspect.getsource(function), sorted(_held(function, visited))))
    return None


def _attributes(attributes: Mapping[str, object], home: str, visited: set[int]) -> list[tuple[str, str]]:
    shown = {name: _shown(each, home, visited) or type(each).__qualname__ for name, each in attributes.items()}
    return sorted(shown.items())


def _members(owner: type, home: str, visited: set[int]) -> list[tuple[str, str]]:
    """Return the methods and values of a class of its own, and of the bases that are."""
    shown: list[tuple[str, str]] = []
    for kind in owner.__mro__:
        for name, member in vars(kind).items() if kind.__module__ == home else ():
            wrapped = (getattr(member, part, None) for part in ("__func__", "fget", "func"))
            function = next(filter(None, wrapped), member)  # what a class method or property calls
            is_made = name.startswith("__") and not isinstance(function, FunctionType)  # by Python: its line, say
            if not is_made and (text := _shown(function, home, visited)) is not None:
                shown.append((f"{kind.__qualname__}.{name}", text))
    return sorted(shown)


def _numbers(value: object) -> str | None:
    """Return the digest of an array's or tensor's numbers; None for what is neither, or shows none."""
    with suppress(TypeError, ValueError, BufferError, RuntimeError):
        array = getattr(type(value), "__array__", None)  # memoryview takes no tensor
        view = memoryview(array(value) if array else value)  # type: ignore[arg-type]  # of no array it is a TypeError
        if "O" not in view.format:  # else its bytes are where objects lie
            return hashlib.sha256(repr((view.format, view.shape)).encode() + view.tobytes()).hexdigest()
    return None
