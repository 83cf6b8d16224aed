"""What tells a function of this process from others: its source, and what it holds besides.

Two functions of one source may give different scores: closures over different values, methods of different objects, a
helper that was edited in another cell of a notebook.
"""

from __future__ import annotations

import hashlib
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType

__all__ = ["function_facts"]

PROCESS = uuid.uuid4().hex
MOST_DEPTH = 20
_objects: dict[int, object] = {}  # kept, so that no other one gets their number


def function_facts(function: Callable[..., object]) -> dict[str, str]:
    """Return the digest of a function's source, and of what it holds where it holds something.

    Told apart are closed-over values, defaults, the object of a method, and what it names of its module: functions and
    plain values. An object is known by its class and its plain attributes, so that the next process knows it, an array
    by its numbers. What shows neither (a lock, a tensor) is another one in each process, but as an attribute, where its
    class stands for it; of a module it is not looked at.

    Args:
        function: A function or method whose source can be read.

    Raises:
        OSError: its source can't be read.
        TypeError: it is no function.
    """
    facts = {"code": _digest(inspect.getsource(function))}
    held = sorted(_held(function, {id(function)}))
    return facts | ({"holds": _digest(repr(held))} if held else {})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _held(function: Callable[..., object], seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield what a function's score may depend on besides its source, by name."""
    if isinstance(function, MethodType):
        yield "the object", _content(function.__self__, seen)
        function = function.__func__
    if not isinstance(function, FunctionType):
        return
    for number, value in enumerate(function.__defaults__ or ()):
        yield f"default {number}", _content(value, seen)
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"default {name}", _content(value, seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is assigned later
            yield f"closed over {name}", _content(cell.cell_contents, seen)
    code = function.__code__
    if code.co_name == "<lambda>":  # the source is the whole line, which may hold several
        columns = [column for *_, begin, end in code.co_positions() for column in (begin, end) if column is not None]
        yield "columns", repr((min(columns, default=0), max(columns, default=0)))
    for name in sorted(_names_in(code) & function.__globals__.keys()):
        value = function.__globals__[name]
        is_own = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if (is_own or _plain(value) is not None) and id(value) not in seen:
            yield f"global {name}", _content(value, seen)


def _names_in(code: CodeType) -> set[str]:
    inside = [_names_in(part) for part in code.co_consts if isinstance(part, CodeType)]
    return {*code.co_names, *(name for names in inside for name in names)}


def _content(value: object, seen: set[int]) -> str:
    if (plain := _plain(value)) is not None:
        return plain
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, FunctionType | MethodType):
        if id(value) in seen:
            return value.__qualname__
        seen.add(id(value))
        with suppress(OSError, TypeError):
            return repr((inspect.getsource(value), sorted(_held(value, seen))))
    with suppress(TypeError, ValueError, BufferError):
        view = memoryview(value)  # type: ignore[arg-type]  # of what is no array it is a TypeError
        if "O" not in view.format:  # else its bytes are where objects lie
            return hashlib.sha256(repr((view.format, view.shape)).encode() + view.tobytes()).hexdigest()
    if isinstance(attributes := getattr(value, "__dict__", None), dict) and attributes:
        shown = {name: _plain(each) or type(each).__qualname__ for name, each in attributes.items()}
        return repr((type(value).__module__, type(value).__qualname__, sorted(shown.items())))
    _objects[id(value)] = value
    return f"{PROCESS} {id(value)}"


def _plain(value: object, depth: int = 0) -> str | None:
    """Return a plain value as a text that tells it from others; None for any other value."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | PurePath):
        return repr(value)
    if depth > MOST_DEPTH or not isinstance(value, list | tuple | set | frozenset | Mapping):
        return None
    items = [item for pair in value.items() for item in pair] if isinstance(value, Mapping) else list(value)
    texts = [_plain(item, depth + 1) for item in items]
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    return f"{type(value).__name__}{sorted(known) if isinstance(value, set | frozenset) else known}"
