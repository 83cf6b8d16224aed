"""Parts of long lists of cases, so that `make test` stays short."""

from __future__ import annotations

import pytest

__all__ = ["some_of"]


def some_of(cases, every=2):
    """Mark all cases slow but every second one, or third: these run each time, all of them with the slow ones."""
    return [
        case if number % every == 0 else pytest.param(case, marks=pytest.mark.slow) for number, case in enumerate(cases)
    ]
