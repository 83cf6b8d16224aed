"""What all injected faults stand on: forked runs of the command line, and a small pool to run them on."""

from __future__ import annotations

import pytest

from tests.helpers.forked_cli import Forge
from tests.helpers.toy_pools import make_judge, make_pool


@pytest.fixture(scope="module")
def soup():
    with Forge() as forge:
        yield forge


@pytest.fixture
def here(tmp_path):
    make_pool(tmp_path / "ckpts", shards=2)
    make_judge(tmp_path / "judge")
    return tmp_path
