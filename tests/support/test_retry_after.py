"""What a server's `Retry-After` says."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from soup.support.retry_after import retry_after_seconds


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("2.5", 2.5), ("120", 120), ("-3", 0), (" 7 ", 7)])
def test_a_number_is_seconds_from_now(text, seconds):
    assert retry_after_seconds(text) == seconds


def test_a_date_is_the_seconds_until_then_and_one_that_is_over_none():
    assert 50 < retry_after_seconds(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize("text", [None, "", "soon", "nan", "inf", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_anything_else_says_nothing(text):
    assert retry_after_seconds(text) is None
