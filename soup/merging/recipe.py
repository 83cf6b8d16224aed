"""The recipe: everything that is needed to make a soup again. Read, validated, written, digested."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from soup.errors import RecipeError
from soup.merging.recipe_yaml import absolute, read_fields, relative, yaml_text
from soup.support.options import option_name
from soup.support.plugins import METHODS, code_digest, code_file_digest
from soup.support.text import bullet_list, did_you_mean, is_possible_path
from soup.support.yaml_text import plain_values

__all__ = ["CheckpointSource", "Recipe", "Share", "describe_objective"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


class CheckpointSource(BaseModel):
    """A checkpoint as a recipe names it: a short name, where it lies, and the digest of its weights once it is known.

    `path` is a local directory (absolute here, relative to the recipe in its file), or a Hub id with `@revision`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    path: str = Field(min_length=1)
    digest: str | None = None


class Share(CheckpointSource):
    """An ingredient of a recipe: a checkpoint, and the weight that its tensors have in the soup."""

    weight: Finite = 1.0


S = TypeVar("S", bound=CheckpointSource)


class Recipe(BaseModel):
    """Which checkpoints, in which order and with which weights, by which method, into which dtype.

    Attributes:
        version: That of the format, `schema` in the file.
        strategy: How the soup was chosen, for people; no part of the digest.
        method: A method's name, or a user's own: `FILE.py:CLASS`, with a file path like an ingredient's.
        code: The digest of the file of a user's method, or of one of another package.
        params: The method's parameters.
        dtype: The soup's, as torch names it; None: that of the base or first ingredient.
        drop: Patterns of the tensors that are left out.
        base: What the ingredients were tuned from.
        tokenizer: The checkpoint whose tokenizer and chat template are taken, where that was chosen.
        ingredients: In the order in which values are added up, one at least.
        side_digest: That of the files that the soup takes along from its base or first ingredient (config, tokenizer,
            processor, code), for a score depends on them too.
        result_digest: That of the weights that it made, as `soup inspect` shows it; no part of the recipe's digest.
        objective: What the soup was chosen by, for people; no part of the digest.

    Raises:
        pydantic.ValidationError: unknown fields, values of a wrong type, two ingredients of one name, or weights that
            are all 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    strategy: str | None = None
    method: str = "linear"
    code: str | None = None
    params: dict[str, object] = Field(default_factory=dict)
    dtype: str | None = None
    drop: tuple[str, ...] = ()
    base: CheckpointSource | None = None
    tokenizer: CheckpointSource | None = None
    ingredients: tuple[Share, ...] = Field(min_length=1)
    side_digest: str | None = None
    result_digest: str | None = None
    objective: dict[str, object] = Field(default_factory=dict)

    @field_validator("method")
    @classmethod
    def _make_absolute(cls, method: str) -> str:
        if not is_possible_path(method):
            raise ValueError(f"no method has such a name: {method!r:.80}")
        file, _, name = method.rpartition(":")
        return f"{Path(file).absolute()}:{name}" if file.endswith(".py") and Path(file).is_file() else method

    @field_validator("params", mode="before")
    @classmethod
    def _as_yaml_has_them(cls, params: object) -> object:
        return plain_values(params)

    @field_validator("ingredients")
    @classmethod
    def _names_differ(cls, ingredients: tuple[Share, ...]) -> tuple[Share, ...]:
        names = [ingredient.name for ingredient in ingredients]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"ingredients of the same name: {', '.join(twice)}")
        return ingredients

    @field_validator("objective")
    @classmethod
    def _can_be_described(cls, objective: dict[str, object]) -> dict[str, object]:
        weights, guards = objective.get("weights", {}), objective.get("guards", [])
        if not isinstance(weights, dict) or not all(isinstance(weight, int | float) for weight in weights.values()):
            raise ValueError("expected weights to be numbers by benchmark")
        if not isinstance(guards, list) or not all(isinstance(guard, str) for guard in guards):
            raise ValueError("expected guards to be a list of texts")
        return objective

    @model_validator(mode="after")
    def _weighs_something(self) -> Recipe:
        if not any(ingredient.weight for ingredient in self.ingredients):
            raise ValueError("all weights are 0")
        return self

    @property
    def digest(self) -> str:
        """The sha256 of all that decides the soup's content; paths and short names are no part of it.

        Raises:
            RecipeError: Not all digests of the ingredients are known yet.
        """
        unknown = [share.name for share in self.ingredients if share.digest is None]
        if unknown or self.side_digest is None:
            raise RecipeError(f"The recipe is not sealed: no digest for {', '.join(unknown) or 'its side files'}.")
        facts = {
            "schema": self.version,
            "method": self.method_name,
            "params": self.params,
            "dtype": self.dtype,
            "drop": sorted(self.drop),
            "base": self.base.digest if self.base else None,
            "ingredients": [[share.digest, share.weight] for share in self.ingredients],
            "side": self.side_digest,
        }
        facts |= {"code": self.code} if self.code else {}
        return "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def method_name(self) -> str:
        """The method without the folder of its file: `my.py:TaskArithmetic`, wherever that lies."""
        file, colon, name = self.method.rpartition(":")
        return f"{Path(file).name}{colon}{name}" if file.endswith(".py") else self.method

    @property
    def names(self) -> tuple[str, ...]:
        """The ingredients' short names, in order."""
        return tuple(ingredient.name for ingredient in self.ingredients)

    def describe(self, names: Sequence[str] = ()) -> str:
        """Return `a (0.7) + b (0.3), scale=0.5`: weights where they differ, and the method's parameters.

        Args:
            names: The ingredients in another order than the recipe's.
        """
        weights = {share.name: share.weight for share in self.ingredients}
        uneven = len(set(weights.values())) > 1
        parts = [f"{name} ({weights[name]:.3g})" if uneven else name for name in names or weights]
        return ", ".join([" + ".join(parts), *(f"{key}={value}" for key, value in self.params.items())])

    @property
    def repeated(self) -> list[str]:
        """A remark for each ingredient that holds the same weights as an earlier one: it counts twice."""
        first: dict[str, str] = {}
        remarks = []
        for share in self.ingredients:
            if share.digest is not None and first.setdefault(share.digest, share.name) != share.name:
                remarks.append(f"{share.name} holds the same weights as {first[share.digest]}: it counts twice")
        return remarks

    def sealed(self, digests: Sequence[str], side_digest: str) -> Recipe:
        """Fill in the digests of ingredients, side files and the method's code; check those that are there already.

        Args:
            digests: Those of the ingredients in order, and then the base's if the method reads it.
            side_digest: That of the files that the soup takes along.

        Raises:
            RecipeError: A digest that the recipe names is another; all are listed.
        """
        parts = [*self.ingredients, *([self.base] if self.base else [])][: len(digests)]
        wrong = [
            f"{part.name} ({part.path}): expected {part.digest}, found {digest}"
            for part, digest in zip(parts, digests, strict=True)
            if part.digest not in (None, digest)
        ]
        if wrong:
            raise RecipeError(
                f"Ingredients are not those that the recipe names:\n{bullet_list(wrong)}\n"
                "Get the right checkpoints, or remove the digests from the recipe to make another soup on purpose."
            )
        if self.side_digest not in (None, side_digest):
            raise RecipeError(
                f"Config, tokenizer or processor files of {(self.base or self.ingredients[0]).path} are not those that "
                f"the recipe names: expected {self.side_digest}, found {side_digest}. Restore them, or remove "
                "side_digest from the recipe."
            )
        code = code_digest(METHODS.get(self.method))
        self._refuse_other_code(code)
        filled = [part.model_copy(update={"digest": digest}) for part, digest in zip(parts, digests, strict=True)]
        count = len(self.ingredients)
        base = filled[count] if len(filled) > count else self.base
        update = {"ingredients": tuple(filled[:count]), "base": base, "side_digest": side_digest, "code": code}
        return self.model_copy(update={**update, "result_digest": None})

    def refuse_untrusted_code(self, *, trusted: bool) -> None:
        """Refuse a method of its own, `FILE.py:CLASS` or `package.module:CLASS`; its code is digested, and not run.

        Args:
            trusted: Whether the user said that such code may run.

        Raises:
            RecipeError: It may not, or it is another code than the recipe names.
        """
        file, colon, _ = self.method.rpartition(":")
        if not colon and not self.method.endswith(".py"):
            return  # a name: a method of this install
        if file.endswith(".py") and Path(file).is_file():
            self._refuse_other_code(code_file_digest(Path(file)))
        if not trusted:
            raise RecipeError(
                f"Method {self.method} is code that comes with the recipe, and not with this install. Read it, and if "
                f"you trust it, say so by {option_name('trust_code')}."
            )

    def _refuse_other_code(self, code: str | None) -> None:
        if self.code not in (None, code):
            raise RecipeError(
                f"The code of method {self.method} is not the one that the recipe names: expected {self.code}, found "
                f"{code}. Restore it, or remove code from the recipe to make another soup on purpose."
            )

    @classmethod
    def uniform(cls, ingredients: Iterable[CheckpointSource]) -> Recipe:
        """Make the recipe of the plain mean of `ingredients`."""
        parts = list(ingredients)
        shares = (Share(name=p.name, path=p.path, digest=p.digest, weight=1 / len(parts)) for p in parts)
        return cls(ingredients=tuple(shares))

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """Read a recipe from its YAML file, or mergekit's configuration; relative paths are relative to the file.

        Args:
            path: The file.

        Raises:
            RecipeError: Unreadable, not YAML, or not a recipe; all faults are listed, each with its key.
        """
        path = Path(path)
        fields = read_fields(path)
        try:
            recipe = cls.model_validate(fields)
        except ValidationError as error:
            raise RecipeError(f"{path}: not a valid recipe:\n{bullet_list(_faults(error))}") from error
        parts = [*recipe.ingredients, *filter(None, [recipe.base, recipe.tokenizer])]
        if wrong := [f"{part.name}: {part.path!r:.80}" for part in parts if not is_possible_path(part.path)]:
            raise RecipeError(
                f"{path}: no paths, for a name has at most 255 bytes, and all of it 3,000:\n{bullet_list(wrong)}"
            )
        return recipe.with_paths(lambda location: absolute(location, path.parent))

    def as_json(self) -> dict[str, object]:
        """Return its digest and all that it says, as `--json` prints it.

        Raises:
            RecipeError: It is not sealed.
        """
        return {"digest": self.digest, **self.model_dump(by_alias=True, exclude_none=True)}

    def text(self, directory: Path) -> str:
        """Format as YAML for a file in `directory`: local paths are relative to it, so that both may move together."""
        moved = self.with_paths(lambda location: relative(location, directory))
        fields = moved.model_dump(by_alias=True, exclude_none=True)
        return yaml_text({key: value for key, value in fields.items() if value not in ({}, (), [])})

    def with_paths(self, change: Callable[[str], str]) -> Recipe:
        """Return the recipe with other paths of ingredients, base, tokenizer, and the method's file.

        Args:
            change: Gives the new path of each.
        """

        def moved(part: S) -> S:
            return part.model_copy(update={"path": change(part.path)})

        parts = tuple(moved(ingredient) for ingredient in self.ingredients)
        file, _, name = self.method.rpartition(":")
        method = f"{change(file)}:{name}" if file.endswith(".py") else self.method
        base, tokenizer = (moved(part) if part else None for part in (self.base, self.tokenizer))
        update = {"ingredients": parts, "base": base, "tokenizer": tokenizer, "method": method}
        return self.model_copy(update=update)


def describe_objective(objective: Mapping[str, object]) -> str:
    """Describe a recipe's objective: `mmbench weighs 2; guards: ocrbench>=-1`; empty for the plain mean."""
    weights, guards = objective.get("weights"), objective.get("guards")
    parts = [f"{name} weighs {weight:g}" for name, weight in weights.items()] if isinstance(weights, dict) else []
    if isinstance(guards, list) and guards:
        parts.append(f"guards: {', '.join(guards)}")
    return "; ".join(parts)


def _faults(error: ValidationError) -> Iterator[str]:
    """Yield a line for each fault, with its key; what only follows from another fault is left out."""
    faults = error.errors()
    for fault in faults:
        key = ".".join(map(str, fault["loc"])) or "recipe"
        if fault["type"] == "too_short" and any(len(other["loc"]) > 1 for other in faults):
            continue  # faulty ingredients were not counted
        if fault["type"] == "extra_forbidden":
            kinds: dict[int | str, type[BaseModel]] = {"ingredients": Share}
            kinds |= dict.fromkeys(("base", "tokenizer"), CheckpointSource)
            kind = kinds.get(fault["loc"][0], Recipe)
            known = [field.alias or name for name, field in kind.model_fields.items()]
            yield f"{key}: no such key.{did_you_mean(str(fault['loc'][-1]), known)}"
        else:
            text = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
            text = re.sub(r"valid dictionary or instance of \w+", "mapping with name and path", text)
            yield f"{key}: {text}" + (f", found {fault['input']!r:.80}" if text.startswith("Input ") else "")
