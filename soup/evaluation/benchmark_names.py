"""From the names that `--eval` takes to benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from soup.errors import EvaluatorError
from soup.evaluation.api import ALL, Benchmark, Split
from soup.evaluation.engine import argument_flag
from soup.evaluation.harnesses import Catalog, near_names, target_hint, target_of, target_syntax
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name
from soup.support.plugins import EVALUATORS
from soup.support.text import did_you_mean, without_secrets

__all__ = ["parse_benchmarks", "secret_remarks"]


def parse_benchmarks(texts: Iterable[str], split: Split = ALL) -> list[Benchmark]:
    """Read the benchmarks that `--eval` names, each once, in their order.

    A text names several, separated by commas. Each is `HARNESS:TARGET` (what the registered harness calls target), or
    a bare name: a benchmark that a harness lists, a group of such, or a harness that needs no target. Where a target
    ends is the harness's to say, see `Harness.target_syntax`.

    Args:
        texts: What stands after each `--eval`.
        split: The part of their questions that count.

    Raises:
        EvaluatorError: no benchmark at all, or unknown ones; all are listed, each with the nearest known.
    """
    reader = _NameReader()
    benchmarks = [
        Benchmark(without_secrets(name), harness, target, split)
        for text in texts
        for name, harness, target in reader.read(text)
    ]
    if reader.problems:
        raise EvaluatorError("\n".join(dict.fromkeys(reader.problems)))
    if not benchmarks:
        raise EvaluatorError(
            f"{option_name('eval')} names no benchmark. Known: {', '.join(reader.catalog.benchmarks)}."
        )
    return list(dict.fromkeys(benchmarks))


def secret_remarks(benchmarks: Iterable[Benchmark], settings: EvalSettings) -> list[str]:
    """Return a remark for each target, and each argument of an engine, that holds what looks like a key."""
    texts = [(benchmark.name, benchmark.target, ', and write "$NAME" in its place') for benchmark in benchmarks]
    for member in ("engine_args", "judge_engine_args"):
        arguments = getattr(settings, member).items()
        texts += [(f"{argument_flag(member)} {key}", f"{key}={value}", "") for key, value in arguments]
    return [
        f"{name}: holds what looks like a key. It is shown as *** here and in every file, but other users of this "
        f"machine see it in the list of processes: put it into the environment{advice}"
        for name, text, advice in texts
        if without_secrets(text) != text
    ]


class _NameReader:
    """Cuts texts into (name, harness, target); harnesses are imported once a bare name asks for their lists."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._harnesses = EVALUATORS.names()

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog.load()

    def read(self, text: str) -> Iterator[tuple[str, str, str]]:
        list_harness = ""  # whose list of targets a name may go on with
        while text:
            piece, _, rest = text.partition(",")
            name = piece.strip()
            harness, colon, target = name.partition(":")
            if colon and harness in self._harnesses:
                syntax = target_syntax(harness)
                if syntax == "rest":
                    name = text if text.startswith(harness) else text.strip()
                    rest, target = "", name.partition(":")[2]
                yield name, harness, target
                list_harness = harness if syntax == "list" else ""
            elif not colon and list_harness and not self._is_known(name):
                if name:
                    yield f"{list_harness}:{name}", list_harness, name
            elif name:
                yield from self._bare(name)
                list_harness = ""
            text = rest

    def _is_known(self, name: str) -> bool:
        return name in self.catalog.benchmarks or name in self.catalog.groups or name in self._harnesses

    def _bare(self, name: str) -> Iterator[tuple[str, str, str]]:
        """Yield what a name without a harness before it stands for; keep the problem where it is nothing."""
        listed = self.catalog.benchmarks
        if name in listed:
            yield name, listed[name].harness, name
        elif name in self.catalog.groups:
            yield from ((member, listed[member].harness, member) for member in self.catalog.groups[name])
        elif name not in self._harnesses and (known := self._unlisted(name)):
            yield known
        elif name not in self._harnesses:
            self.problems += [self._unknown(name), *self._broken()]
        elif name in self.catalog.broken:
            self.problems.append(self.catalog.broken[name])
        elif hint := target_hint(name):
            self.problems.append(f"{name}: expected {name}:{hint}.")
        else:
            yield name, name, name

    def _unlisted(self, name: str) -> tuple[str, str, str] | None:
        """Ask each harness whether it knows a name that no list has."""
        targets = ((harness, target_of(harness, name)) for harness in self._harnesses)
        return next(((name, harness, target) for harness, target in targets if target), None)

    def _unknown(self, name: str) -> str:
        prefixes = [f"{harness}:" for harness in self._harnesses if target_hint(harness)]
        bare = [harness for harness in self._harnesses if not target_hint(harness)]
        near = [each for harness in self._harnesses for each in near_names(harness, name)]
        known = dict.fromkeys((*self.catalog.benchmarks, *self.catalog.groups, *bare, *prefixes, *near))
        return f"Unknown benchmark '{name}'.{did_you_mean(name, known)}"

    def _broken(self) -> list[str]:
        return [f"Not known are the benchmarks of {reason}" for reason in self.catalog.broken.values()]
