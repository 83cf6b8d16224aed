"""Kinds of values that several settings have: paths, names, lists that may be one word."""

from __future__ import annotations

import re
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from soup.support.text import is_possible_path

__all__ = [
    "Name",
    "PathText",
    "StrictModel",
    "Words",
    "as_list",
    "check_path",
]


class StrictModel(BaseModel):
    """Settings that take no other keys than their own, and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `early_stopping: true`, which would be taken for 1, and such a member of a list or a mapping."""
        kinds = [cls.model_fields[info.field_name or ""].annotation]
        members: list[object] = [value]
        if isinstance(value, list | dict):
            members = [*(value.values() if isinstance(value, dict) else value)]
            kinds = [member for kind in (*kinds, *get_args(kinds[0])) for member in get_args(kind)]
        parts = {part for kind in kinds for part in (kind, *get_args(kind))}
        if {int, float} & parts and bool not in parts and any(isinstance(member, bool) for member in members):
            raise ValueError("expected a number")
        return value


def check_path(text: str) -> str:
    """Give a path back.

    Raises:
        ValueError: no file can have that name.
    """
    if not is_possible_path(text):
        raise ValueError("a path has at most 3,000 bytes, a name in it 255, and none is 0")
    return text


PathText = Annotated[str, AfterValidator(check_path)]


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text) or len(text.encode()) > 100:
        raise ValueError(
            "a name becomes a folder: expected letters, digits, ., _ and - (up to 100), with no . or - first"
        )
    return text


Name = Annotated[str, AfterValidator(_name)]


def as_list(value: object) -> list[object]:
    """Give a list, where one value may stand for a list of it."""
    return value if isinstance(value, list) else [value]


Words = Annotated[list[str], BeforeValidator(as_list)]
