"""transformers' progress bars are off for a while, and then as they were, whatever happened."""

from __future__ import annotations

import pytest
from transformers.utils import logging

from soup.hf.progress_bars import without_progress_bars


@pytest.fixture(autouse=True)
def as_before():
    was_on = logging.is_progress_bar_enabled()
    yield
    (logging.enable_progress_bar if was_on else logging.disable_progress_bar)()


@pytest.mark.parametrize("on", [True, False])
def test_progress_bars_are_as_before_afterwards(on):
    (logging.enable_progress_bar if on else logging.disable_progress_bar)()
    inside = []

    def fail_midway():
        with without_progress_bars():
            inside.append(logging.is_progress_bar_enabled())
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail_midway()
    assert inside == [False]
    assert logging.is_progress_bar_enabled() is on
