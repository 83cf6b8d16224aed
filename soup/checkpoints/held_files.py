"""Hold a checkpoint on the disk against what a merge would write there: headers first, then block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from soup.checkpoints.file_plan import FilePlan, header_bytes
from soup.checkpoints.shard import Shard
from soup.errors import CheckpointError
from soup.support.open_files import read_errors

__all__ = ["HeldFiles"]


class HeldFiles:
    """The weight files of an earlier soup. As a context manager it closes them.

    `different` names the tensors of which `compare` saw other bytes.

    Args:
        folder: Where they lie.
        files: What they should be.
        metadata: The free metadata that their headers should have.
    """

    def __init__(self, folder: Path, files: Sequence[FilePlan], metadata: Mapping[str, str]) -> None:
        self._folder, self._files, self._metadata = folder, tuple(files), metadata
        self._shards: dict[str, Shard] = {}
        self.different: set[str] = set()

    def are_complete(self) -> bool:
        """Whether just these files are there, with the right headers and sizes; opens them."""
        names = {path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*.safetensors")}
        if names != {plan.name for plan in self._files}:
            return False
        for plan in self._files:
            path, header = self._folder / plan.name, header_bytes(plan, self._metadata)
            if not path.is_file() or path.stat().st_size != len(header) + plan.data_bytes:
                return False
            with read_errors(path, CheckpointError), path.open("rb") as file:
                if file.read(len(header)) != header:
                    return False
            self._shards |= dict.fromkeys((spec.name for spec in plan.tensors), Shard(path))
        return True

    def compare(self, name: str, start: int, data: memoryview) -> None:
        """Compare a block with what is there; several threads may call at once. Takes what a writer takes."""
        if name in self.different:
            return
        there, shard = bytearray(len(data)), self._shards[name]
        try:
            shard.read_into(name, start * shard.header.tensors[name].spec.dtype.bits // 8, memoryview(there))
        except CheckpointError:
            self.different.add(name)
        if there != data:
            self.different.add(name)

    def __enter__(self) -> HeldFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in {*self._shards.values()}:
            shard.close()
