"""A recipe about to be evaluated: as a directory made on demand, or as weights for a loaded module."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soup.checkpoints.digest import ContentDigest
from soup.checkpoints.side_files import lent_kinds
from soup.evaluation.dealing import Dealer
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.soup_weights import SoupWeights
from soup.hf.key_mapping import Conversion
from soup.merging.options import MergeOptions
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from soup.merging.pool_locations import PoolLocations
from soup.merging.recipe import Recipe
from soup.support.removal import remove_tree

if TYPE_CHECKING:
    import torch

__all__ = ["OnAnswers", "PortableCandidate", "SoupCandidate", "ignore_answers", "make_candidate"]

OnAnswers = Callable[[int, int, str], None]
"""Takes how many of how many prompts are answered, and the word for them; see `Candidate.answered`."""


def ignore_answers(count: int, total: int, what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class PortableCandidate:
    """A soup for another process of this host; it can be pickled.

    Args:
        recipe: The sealed recipe.
        pool: Where its ingredients lie.
        digests: The ingredients' digests.
        options: How it is merged.
        home: The candidate's own directory.
        layout: Each tensor's dtype and shape, by its name on disk.
    """

    recipe: Recipe
    pool: PoolLocations
    digests: tuple[ContentDigest, ...]
    options: MergeOptions | None
    home: Path
    layout: Mapping[str, tuple[str, tuple[int, ...]]]

    @contextmanager
    def opened(self) -> Iterator[SoupCandidate]:
        """Open the pool's files, and give the candidate, for the time of a `with`."""
        with self.pool.open() as pool:
            yield SoupCandidate(self.recipe, pool, self.home, self.digests, options=self.options)


class SoupCandidate:
    """The soup of a sealed recipe, for an evaluator. See `soup.evaluation.Candidate` for what the members promise.

    Args:
        recipe: The sealed recipe.
        pool: Holds its ingredients, open.
        home: The candidate's own directory, for what is removed after its evaluation.
        digests: The ingredients' digests: a tensor that does not differ between them is read once.
        options: How it is merged; by default as the recipe says.
        kept: The directory for answers that outlive a run that stops (default: in `home`).
        logs: The directory for what processes print (default: in `home`).
        on_answers: Called with how many of how many prompts are answered, by evaluators that tell; see `answered`.
        on_remark: Called with what is strange about the answers.

    Raises:
        RecipeError: See `soup.merging.plan.plan_merge`.
    """

    def __init__(
        self,
        recipe: Recipe,
        pool: Pool,
        home: Path,
        digests: Iterable[ContentDigest] = (),
        *,
        options: MergeOptions | None = None,
        kept: Path | None = None,
        logs: Path | None = None,
        on_answers: OnAnswers = ignore_answers,
        on_remark: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.dealer: Dealer | None = None
        self.digest = recipe.digest
        self.names = recipe.names
        self.home = home
        self.kept = kept or home / "kept"
        self.logs = logs or home / "logs"
        self.scratch = home / "scratch"
        self._plan = plan_merge(recipe, pool, options)
        self._pool, self._digests, self._options = pool, tuple(digests), options
        self._weights = SoupWeights(self._plan, self._digests)
        self._directory: Path | None = None
        self._on_answers = on_answers
        self._on_remark = on_remark

    @property
    def template(self) -> Path:
        """A checkpoint with just the candidate's config, tokenizer and processor files: the lead, if it is such."""
        lead = self._plan.lead
        if self._plan.untied_output:  # as no config.json here says
            return self.directory()
        if "adapter_config.json" in lead.side_files.left_out:  # transformers would load that adapter's base
            return self.directory()
        differs = lead.side_files.refused or lent_kinds(lead, *self._plan.blend.inputs, tokenizer=self._plan.tokenizer)
        return self.directory() if differs else lead.path

    def directory(self) -> Path:
        """Give the candidate as a complete checkpoint directory; the first call writes it.

        The path is absolute: what it is handed to may work in another directory.
        """
        if self._directory is None:
            self._directory = self._weights.write(self.home.absolute() / "checkpoint")
        return self._directory

    def portable(self) -> PortableCandidate:
        """Return all that another process of this host needs to blend the weights by itself."""
        recipe, home = self._plan.recipe, self.home
        layout = {spec.name: (spec.dtype.name, spec.shape) for spec in self._plan.writes}
        return PortableCandidate(recipe, PoolLocations.of(self._pool), self._digests, self._options, home, layout)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights under their names on disk; see `SoupWeights.tensors`."""
        return self._weights.tensors()

    def load_into(
        self, module: torch.nn.Module, names: Mapping[str, str] | None = None, conversions: Sequence[Conversion] = ()
    ) -> None:
        """Stream the weights into a torch module; see `SoupWeights.load_into`."""
        self._weights.load_into(module, names, conversions)

    def refuse_changed(self) -> None:
        """Refuse ingredients that were changed since they were opened: scores would be those of other weights.

        Raises:
            CheckpointError: Says which.
        """
        self._plan.refuse_changed()

    def dealt(self, dealer: Dealer, on_answers: OnAnswers) -> SoupCandidate:
        """Return the same candidate for one evaluation beside others: with a scratch of its own, for a dealer."""
        dealt = copy(self)
        dealt.dealer, dealt._on_answers = dealer, on_answers
        return dealt

    def answered(self, count: int, of: int, what: str = "answers") -> None:
        """Pass on that `count` of so many prompts are answered; `what` is the word for them."""
        self._on_answers(count, of, what)

    def remark(self, text: str) -> None:
        """Pass on what is strange about the answers."""
        self._on_remark(text)

    @contextmanager
    def evaluation(self, name: str) -> Iterator[Path]:
        """Make a scratch directory for one evaluation: removed after success, kept after a failure for its log."""
        self.scratch = self.home / re.sub(r"[^\w.-]+", "_", name)[:80]
        remove_tree(self.scratch)
        self.scratch.mkdir(parents=True)
        try:
            yield self.scratch
        except KeyboardInterrupt:
            remove_tree(self.scratch)
            raise
        except BaseException:
            with suppress(OSError):
                self.scratch.rmdir()  # which fails where there is a log
            raise
        self._clear(self.scratch)

    def remove(self) -> None:
        """Remove the checkpoint directory; what a failed evaluation left stays."""
        if self._directory is not None:
            self._clear(self._directory)
            self._directory = None
        with suppress(OSError):
            self.home.rmdir()  # not empty after a failure

    def _clear(self, folder: Path) -> None:
        if not remove_tree(folder):
            self._on_remark(f"{folder}: can't be removed, or not whole: remove what is left of it.")


def make_candidate(
    recipe: Recipe,
    pool: Pool,
    run: RunDirectory,
    digests: Mapping[str, ContentDigest],
    options: MergeOptions,
    *,
    on_answers: OnAnswers = ignore_answers,
    on_remark: Callable[[str], None] = lambda text: None,
    process: str = "",
) -> SoupCandidate:
    """Return a recipe's candidate, with its own folders in the run's directory.

    `process` names the process, where several have the same candidate at once: each then has its own files.
    """
    home = run.candidate(recipe)
    return SoupCandidate(
        recipe,
        pool,
        home.with_name(f"{home.name}-{process}") if process else home,
        digests.values(),
        options=options,
        kept=run.answers(recipe),
        logs=run.logs,
        on_answers=on_answers,
        on_remark=on_remark,
    )
