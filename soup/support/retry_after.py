"""How long a server asks to be left alone."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime

__all__ = ["retry_after_seconds"]


def retry_after_seconds(value: str | None) -> float | None:
    """Read an HTTP header `Retry-After`.

    Args:
        value: A number of seconds, or a date.

    Returns:
        The seconds from now, at least 0; None where the header is absent, or neither.

    Source:
        RFC 9110, section 10.2.3.
    """
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
