"""Digests of what training reads, where it comes from the Hub."""

from __future__ import annotations

import pytest

from finetune.launching.digests import Digests
from soup.errors import FinetuneError

COMMIT = "0123456789" * 4


@pytest.mark.parametrize("start", [f"team/a@{COMMIT}", f"team/a@{COMMIT}:runs/last"])
def test_a_commit_is_its_own_digest_without_the_hub(start):
    assert Digests().start(start) == start


def test_a_branch_that_nobody_can_resolve_is_refused():
    with pytest.raises(FinetuneError, match="HF_HUB_OFFLINE is set"):
        Digests().start("team/a@main")
