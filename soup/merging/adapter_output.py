"""Write the soup of adapters as one adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from soup.checkpoints.adapter import ADAPTER_CONFIG
from soup.checkpoints.card import CARD
from soup.checkpoints.digest import digest_checkpoint, digest_files
from soup.checkpoints.held_files import HeldFiles
from soup.checkpoints.writer import CheckpointWriter
from soup.merging.adapter_soup import AdapterPlan
from soup.merging.block_loop import for_each_block
from soup.merging.plan import MergePlan
from soup.merging.recipe import Recipe
from soup.merging.soup_files import NO_DIGEST, earlier_soup, header_metadata, make_card
from soup.merging.tensor_inputs import stored_checkpoints

__all__ = ["write_adapter"]


def write_adapter(
    plan: MergePlan,
    adapter: AdapterPlan,
    out: Path,
    scores: Mapping[str, Mapping[str, float]] | None,
    scores_note: str,
    on_bytes: Callable[[int], None] | None,
    on_remark: Callable[[str], None],
) -> Recipe:
    """Write the soup as one adapter, or leave the one that stands there, if it is the same.

    What it is made of is read through for the recipe's digests.
    """
    digests = {part: digest_checkpoint(part, on_bytes) for part in stored_checkpoints(plan.blend)}
    adapter.refuse_other_copies(digests)
    sealed = plan.recipe.sealed([digest.content for digest in digests.values()], digest_files(plan.side_files))
    assert sealed.base is not None, "adapters have a base"
    config = adapter.config(sealed.base.path)
    if not plan.write.overwrite and _holds_adapter(plan, adapter, sealed, config, out):
        return sealed
    with CheckpointWriter(out, plan.files, header_metadata(NO_DIGEST), overwrite=plan.write.overwrite) as writer:
        if error := _make_adapter(plan, adapter, writer.write):
            on_remark(f"{out}: what the adapter adds to the base differs from the soup's by {error:.2%} of its norm")
        writer.add_file(ADAPTER_CONFIG, config)
        writer.add_file("recipe.yaml", sealed.text(out).encode())
        card = make_card(plan, sealed, out, scores, scores_note, error)
        writer.add_file(CARD, card.encode())
        writer.commit(header_metadata(sealed.digest))
    return sealed


def _make_adapter(plan: MergePlan, adapter: AdapterPlan, write: Callable[[str, int, memoryview], None]) -> float:
    """Make an adapter's tensors; returns what `AdapterPlan.write_factors` does."""

    def write_whole(name: str, start: int, values: memoryview) -> None:
        for key in (key for key, stored in adapter.whole.items() if stored == name):
            write(key, start, values)

    error = adapter.write_factors(write)
    for_each_block(plan.blend, [spec for spec in plan.reads if spec.name in adapter.whole.values()], write_whole)
    plan.refuse_changed()
    return error


def _holds_adapter(plan: MergePlan, adapter: AdapterPlan, sealed: Recipe, config: bytes, out: Path) -> bool:
    """Whether this very adapter stands at `out`, so that nothing is left to do."""
    earlier, config_file = earlier_soup(out), out / ADAPTER_CONFIG
    weights = HeldFiles(out, plan.files, header_metadata(sealed.digest))
    if earlier is None or earlier.digest != sealed.digest or not config_file.is_file() or not weights.are_complete():
        return False
    with weights:
        _make_adapter(plan, adapter, weights.compare)
    return not weights.different and config_file.read_bytes() == config
