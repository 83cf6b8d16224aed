"""A configuration's YAML file: a mapping, its numbers as YAML 1.2 has them.

To YAML 1.1, 24:00:00 is the number 86400, and 1e-5 a text.
"""

from __future__ import annotations

import re
from pathlib import Path

from soup.errors import FinetuneError
from soup.support.yaml_text import BoundedLoader, read_yaml

__all__ = ["read_mapping"]


NUMBERS = {  # https://yaml.org/spec/1.2.2/#1032-tag-resolution, and 1_000 as before
    "int": r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan",
}


class _Loader(BoundedLoader):
    """Reads no numbers to the base of 60."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as yaml has it)
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in NUMBERS]
        for first, known in BoundedLoader.yaml_implicit_resolvers.items()
    }


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
    document = read_yaml(Path(path), FinetuneError, _Loader)
    if not isinstance(document, dict):
        what = "an empty file" if document is None else type(document).__name__
        raise FinetuneError(f"{path}: expected keys such as {keys}, found {what}.")
    return document
