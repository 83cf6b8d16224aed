"""How soups are merged and written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soup.errors import RecipeError
from soup.support.options import option, option_name, refuse_wrong_type

__all__ = ["MergeOptions", "WriteOptions"]

TEXT = (str, type(None))


@dataclass(frozen=True)
class MergeOptions:
    """How ingredients become one model.

    Args:
        method: The arithmetic: a name, or `FILE.py:CLASS`.
        method_args: The method's parameters.
        dtype: The dtype to write; None: the ingredients' own.
        drop: Patterns of tensors to leave out (`*` and `?`).
        tokenizer: The ingredient (or `base`) whose tokenizer and chat template soups take, be the others' as they may.
        allow_nonfinite: Whether NaN and infinity are merged instead of refused.
        threads: Threads that merge; None: one a core, 2 to 8. Changes no byte.
        trust_code: Whether a method that a recipe brings along may run: `FILE.py:CLASS`. One that is named here may.
        block_elements: The most elements of a tensor to hold; None: what fits the memory. Changes no byte.

    Raises:
        RecipeError: values of a wrong type.
    """

    method: str = option("linear", "The arithmetic.", "Merge", metavar="NAME|FILE.py:CLASS")
    method_args: Mapping[str, Any] = option(
        {}, "A parameter of the method. Repeatable.", "Merge", "pairs", flag="method-arg", metavar="KEY=VALUE"
    )
    dtype: str | None = option(
        None, "Write this dtype (bfloat16, float16, float32, float64).", "Merge", metavar="DTYPE"
    )
    drop: Sequence[str] = option(
        (), "Leave tensors out by name (* and ?). Repeatable.", "Merge", "texts", metavar="PATTERN"
    )
    tokenizer: str | None = option(
        None, "Whose tokenizer soups take, where they differ: an ingredient, or base.", "Merge", metavar="NAME"
    )
    allow_nonfinite: bool = option(False, "Merge NaN and infinity instead of refusing them.", "Merge", "flag")
    threads: int | None = option(
        None, "Threads that merge. [default: one a core, 2 to 8]", "Merge", "count", metavar="N", minimum=1
    )
    trust_code: bool = False
    block_elements: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.drop, str):
            raise RecipeError(f"drop: expected a list of patterns, found {self.drop!r}.")
        refuse_wrong_type(
            vars(self),
            {
                "method": str,
                "method_args": Mapping,
                "dtype": TEXT,
                "drop": Sequence,
                "tokenizer": TEXT,
                "allow_nonfinite": bool,
                "trust_code": bool,
                "threads": (int, type(None)),
                "block_elements": (int, type(None)),
            },
            RecipeError,
        )
        if wrong := [value for value in (*self.drop, *self.method_args) if not isinstance(value, str)]:
            raise RecipeError(f"drop, method_args: expected patterns and names as str, found {wrong!s:.80}.")
        for name in ("threads", "block_elements"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise RecipeError(f"{name}: expected a number from 1, found {count}.")

    def refuse_what_a_recipe_says(self) -> None:
        """Refuse a method, a dtype, patterns or a tokenizer beside a recipe, which has its own.

        Raises:
            RecipeError: they differ from the defaults.
        """
        default = MergeOptions()
        names = ("method", "method_args", "dtype", "drop", "tokenizer")
        if wrong := [option_name(name) for name in names if getattr(self, name) != getattr(default, name)]:
            raise RecipeError(f"{', '.join(wrong)}: is the recipe's to say. Change it there.")


@dataclass(frozen=True)
class WriteOptions:
    """How a checkpoint is written.

    Args:
        overwrite: Whether an earlier soup at the destination is replaced.
        max_shard_bytes: Lay the files out anew, at most so large; None: as the base or the first ingredient has them.
        as_adapter: Write a soup of adapters as one adapter: `exact`, or `rank=R` for the nearest of rank R.

    Raises:
        RecipeError: values of a wrong type.
    """

    overwrite: bool = option(False, "Replace an earlier soup at --out.", "Output", "flag")
    max_shard_bytes: int | None = option(
        None,
        "Lay the files out anew, at most so large (5GB).",
        "Output",
        "size",
        flag="max-shard-size",
        metavar="SIZE",
        minimum=1,
    )
    as_adapter: str | None = option(
        None, "Write a soup of adapters as one adapter.", "Output", bare="exact", metavar="[rank=R]"
    )

    def __post_init__(self) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {"overwrite": bool, "max_shard_bytes": (int, type(None))}
        refuse_wrong_type(vars(self), kinds | {"as_adapter": TEXT}, RecipeError)
        if self.as_adapter not in (None, "exact") and not re.fullmatch(r"rank=[1-9]\d{0,8}", self.as_adapter):
            raise RecipeError(f"{option_name('as_adapter')}: expected exact or rank=R, found {self.as_adapter!r:.80}.")

    @property
    def adapter_rank(self) -> int | None:
        """The rank of the adapter that is written; None: what holds the soup exactly, or no adapter."""
        return int(self.as_adapter.removeprefix("rank=")) if self.as_adapter not in (None, "exact") else None
