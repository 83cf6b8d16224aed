"""What a command would do, as numbers: for `--dry-run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soup.merging.block_loop import BLOCK_BUDGET_BYTES
from soup.merging.merge import MergePlan
from soup.support.threads import default_threads

__all__ = ["merge_plan"]

IMPORTED_BYTES = 240_000_000
"""What Python with torch takes before a merge begins, as measured; the blocks' buffers come on top."""


def merge_plan(plan: MergePlan, out: Path) -> dict[str, Any]:
    """The size of a merge: tensors, files, bytes to read and to write, and an upper bound of memory."""
    inputs = len(plan.blend.inputs)
    per_thread = min(BLOCK_BUDGET_BYTES, inputs * 6 * 2**19) + 4 * 2**21
    return {
        "out": str(out),
        "ingredients": list(plan.recipe.names),
        "method": plan.recipe.method,
        "tensors": len(plan.writes),
        "dtypes": sorted({spec.dtype.name for spec in plan.writes}),
        "shards": [file.name for file in plan.files],
        "read_bytes": plan.read_bytes,
        "write_bytes": plan.write_bytes,
        "ram_bytes": IMPORTED_BYTES + default_threads() * per_thread,
    }
