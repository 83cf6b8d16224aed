"""Two processes train one model: a batch of text alone on one of them holds nobody up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "ddp-checkpointed", "ddp-frozen", "fsdp", "fsdp-frozen", "fsdp-remembered"])
def test_a_rank_with_text_alone_keeps_step_with_one_with_images(way):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tests.helpers.two_ranks", way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    # Lines of two processes may run into one.
    assert all(done.stdout.count(f"rank{rank}:equal") == 1 for rank in (0, 1))
