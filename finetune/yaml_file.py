"""A YAML file's mapping: text, each key once, numbers as YAML 1.2 has them.

YAML itself lets a key that stands twice keep its last value alone, without a word: of two added data sets by one name
the first would be lost. To YAML 1.1, 24:00:00 is the number 86400, and 1e-5 a text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

from soup.errors import FinetuneError

__all__ = ["read_mapping"]


NUMBERS = {  # https://yaml.org/spec/1.2.2/#1032-tag-resolution, and 1_000 as before
    "int": r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan",
}


class _Loader(yaml.SafeLoader):
    """As `yaml.SafeLoader`, without keys that stand twice and numbers to the base of 60."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as yaml has it)
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in NUMBERS]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """As yaml does. Keys that `<<` brings in may be overridden: they are told apart by their nodes."""
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if first := seen.get(key.value):
                raise yaml.constructor.ConstructorError(
                    f"{key.value}: stands there twice, first here", first.start_mark, "and again here", key.start_mark
                )
            seen[key.value] = key
        return super().construct_mapping(node, deep)


for _name, _pattern in NUMBERS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), list("-+.0123456789"))


def read_mapping(path: Path, keys: str) -> dict[str, object]:
    """Read the mapping in a YAML file.

    Args:
        path: the file.
        keys: some that are expected there, for the error about another file.

    Raises:
        FinetuneError: no such file, not text, not YAML, a key that stands twice, or no mapping.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            document = yaml.load(file, _Loader)
    except OSError as error:
        raise FinetuneError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise FinetuneError(f"{path}: expected a YAML file, found bytes that are no text ({error}).") from error
    except yaml.YAMLError as error:
        raise FinetuneError(f"{path}: not valid YAML.\n{error}") from error
    if not isinstance(document, dict):
        what = "an empty file" if document is None else type(document).__name__
        raise FinetuneError(f"{path}: expected keys such as {keys}, found {what}.")
    return document
