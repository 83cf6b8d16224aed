"""The merge methods, one per file. The rest of soup knows them by `soup/merging/methods/base.py` alone."""

from __future__ import annotations

from soup.merging.methods.base import Block, Method
from soup.support.plugins import METHODS

__all__ = ["Block", "Method", "method"]

method = METHODS.register
"""A class decorator: `@method("name")` registers a subclass of `Method` for recipes."""
