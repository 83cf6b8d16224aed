"""A candidate: what an evaluator gets, a soup that may or may not lie on disk yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from soup.hf.key_mapping import Conversion

__all__ = ["Candidate"]


class Candidate(Protocol):
    """A recipe about to be evaluated. What is evaluated is, bit for bit, what would be written."""

    @property
    def digest(self) -> str:
        """The recipe's digest: equal digests mean equal weights, configuration, tokenizer and processor."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the ingredients that it is made of, in the recipe's order; one alone is a checkpoint."""

    @property
    def template(self) -> Path:
        """A checkpoint directory with the candidate's config, tokenizer and processor files (but other weights)."""

    @property
    def scratch(self) -> Path:
        """A fresh directory for this evaluation's files; removed after success, kept after a failure."""

    @property
    def kept(self) -> Path:
        """A directory of this candidate's own for what is worth keeping for a rerun; made by whoever writes first."""

    @property
    def logs(self) -> Path:
        """The run's directory for what processes print; made by whoever writes first."""

    def directory(self) -> Path:
        """Return the candidate as a complete checkpoint directory, whose files are its own."""

    def load_into(
        self, module: Any, names: Mapping[str, str] | None = None, conversions: Sequence[Conversion] = ()
    ) -> None:
        """Stream the weights into a torch module, every parameter and persistent buffer, block by block.

        Every place in the module is filled, bit for bit, or nothing is touched. `soup.hf.key_mapping.plan_loading` has
        both arguments for a module of transformers. What neither names is not loaded: a library may have no use for it.

        Args:
            module: The module.
            names: Maps names on disk to names in memory, for tensors that are loaded as they are. Default: all that
                `conversions` do not take, each under its own name.
            conversions: Make tensors in memory from several on disk, or several from one.

        Raises:
            CheckpointError: names, shapes or dtypes of module and candidate do not match, or a conversion fails; all
                are listed.
        """

    def answered(self, count: int, of: int, what: str = "answers") -> None:
        """Tell whoever waits how many prompts are answered; an evaluator of seconds need not.

        Args:
            count: Those that are.
            of: All of them.
            what: The word for what is counted: `answers`, and then `grades`, where an LLM judge gives them.
        """

    def remark(self, text: str) -> None:
        """Tell whoever waits of something strange that stops nothing; the same text is told once in a run."""
