"""The arithmetic: one method, one paper, one file. They meet the rest through `soup/merging/methods/base.py` alone."""

from soup.merging.methods.base import Block, Method
from soup.support.plugins import METHODS

__all__ = ["Block", "Method", "method"]

method = METHODS.register
"""A class decorator: `@method("name")` makes a subclass of `Method` known to recipes."""
