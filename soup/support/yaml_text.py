"""Read YAML that may be damaged or hostile: in bounded time and memory, and with one error for all that is wrong.

YAML itself lets a key that stands twice keep its last value alone, without a word: of two added data sets by one name
the first would be lost. An alias may name what is full of aliases: some hundred bytes then unfold to gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from soup.errors import SoupError
from soup.support.json_text import MAX_DEPTH, MAX_DIGITS, MAX_TEXT_BYTES, read_text

__all__ = ["BoundedLoader", "parse_yaml", "plain_values", "read_yaml"]

MAX_NODES = 50_000  # keys, values and lists, as many as there are once all aliases are unfolded

Mark = Any  # yaml's, of Python or of C

_CORE = "tag:yaml.org,2002:"
_TEXT, _MERGE = f"{_CORE}str", f"{_CORE}merge"
_NUMBERS = (f"{_CORE}int", f"{_CORE}float")
_TAGS = {_TEXT, *_NUMBERS, *(f"{_CORE}{kind}" for kind in ("null", "bool", "seq", "map"))}

_YAML_FAULTS = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError)


class BoundedLoader(yaml.SafeLoader):
    """As `yaml.SafeLoader`, for what JSON has: text, numbers, true, false, null, lists, and mappings by text.

    A date is text; `on` and `yes` are text where they are keys. No key stands twice; those that `<<` brings in may be
    overridden.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (as yaml has it)
        first: [(tag, pattern) for tag, pattern in known if tag != f"{_CORE}timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 (None stands for all other tags, and refuses them)
        tag: constructor for tag, constructor in yaml.SafeLoader.yaml_constructors.items() if tag in {*_TAGS, None}
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # of composed nodes, by id

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As yaml does, and count."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            size = self._sizes.get(id(node))
            if size is None:
                raise _fault(f"*{event.anchor}: stands within what it names", event.start_mark)
            self._count(size, event.start_mark)
            return node
        before = self._nodes
        self._count(1, event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _fault(f"nested more than {MAX_DEPTH} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before
        return node

    def _count(self, nodes: int, mark: Mark) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _fault(f"more than {MAX_NODES:,} keys and values, with all aliases unfolded", mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As yaml does, and check the keys: before `<<` brings in others."""
        node = super().compose_mapping_node(anchor)
        keys: dict[object, yaml.Node] = {}
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if key.tag == f"{_CORE}bool":
                key.tag = _TEXT
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, *_NUMBERS):
                raise _fault("a key must be text", key.start_mark)
            value = self.construct_object(key)
            if first := keys.get(value):
                raise yaml.constructor.ConstructorError(
                    f"{key.value}: stands there twice, first here", first.start_mark, "and again here", key.start_mark
                )
            if keys and isinstance(value, str) != isinstance(next(iter(keys)), str):
                raise _fault(f"{key.value}: keys of one mapping must be all text, or all numbers", key.start_mark)
            keys[value] = key
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """As yaml does; what can't be read is told with its place."""
        if node.tag in _NUMBERS and isinstance(node.value, str) and len(node.value) > MAX_DIGITS:
            raise _fault(f"a number of {len(node.value):,} digits", node.start_mark)
        try:
            value: object = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            raise _fault(f"half of a surrogate pair in the text {value!r:.80}", node.start_mark) from error
        except _YAML_FAULTS as error:
            kind = node.tag.removeprefix(_CORE)
            raise _fault(f"{node.value!r:.80} can't be read as {kind}", node.start_mark) from error
        return value


def read_yaml(path: Path, error: type[SoupError], loader: type[BoundedLoader] = BoundedLoader) -> object:
    """Read a YAML file.

    Args:
        path: The file.
        error: The class of error to raise.
        loader: What reads the values.

    Raises:
        SoupError: Of the class `error`: it can't be read, or see `parse_yaml`.
    """
    data = read_text(path, error, MAX_TEXT_BYTES)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{path}: expected a YAML file, found bytes that are no text ({cause}).") from cause
    return parse_yaml(text, path, error, loader)


def parse_yaml(
    text: str, source: object, error: type[SoupError], loader: type[BoundedLoader] = BoundedLoader
) -> object:
    """Parse YAML.

    Args:
        text: What is parsed.
        source: The file, or what else it comes from, for the error.
        error: The class of error to raise.
        loader: What reads the values.

    Raises:
        SoupError: Of the class `error`: no YAML, too much of it, a key that stands twice, or another type of value
            than JSON has; with line and column.
    """
    try:
        document: object = yaml.load(text, loader)
    except yaml.YAMLError as cause:
        raise error(f"{source}: not readable as YAML.\n{cause}") from cause
    except (*_YAML_FAULTS, RecursionError) as cause:  # its scanner's, of an escape beyond Unicode and such
        raise error(f"{source}: not readable as YAML ({cause}).") from cause
    return document


def _fault(problem: str, mark: Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def plain_values(value: object) -> object:
    """Return what YAML and JSON can say: tuples as lists, numbers and arrays of numpy and torch as Python's."""
    if isinstance(value, Mapping):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    as_python = getattr(value, "tolist", None)
    return as_python() if callable(as_python) else value
