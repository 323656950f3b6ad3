"""When a key shall end, as people write it."""

from __future__ import annotations

import pytest

from managedd.clock import iso
from managedd.model.expiry import expires_us

NOW_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z"""


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", "2026-04-01T00:00:00.000000Z"),
        ("12h", "2026-01-01T12:00:00.000000Z"),
        ("30m", "2026-01-01T00:30:00.000000Z"),
        ("2w", "2026-01-15T00:00:00.000000Z"),
        (" 1d ", "2026-01-02T00:00:00.000000Z"),
        ("2027-01-01", "2027-01-01T00:00:00.000000Z"),
        ("2026-02-03T04:05:06", "2026-02-03T04:05:06.000000Z"),
        ("2026-02-03T04:05:06+02:00", "2026-02-03T02:05:06.000000Z"),
    ],
)
def test_a_duration_counts_from_now_and_a_date_is_its_first_moment_in_utc(text: str, moment: str) -> None:
    assert iso(expires_us(text, NOW_US)) == moment


@pytest.mark.parametrize("text", ["", "soon", "90", "-1d", "1y", "9999999999d", "2026-13-01", "d", "1.5h"])
def test_what_is_no_time_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a duration such as 90d"):
        expires_us(text, NOW_US)


@pytest.mark.parametrize("text", ["0d", "2026-01-01", "2020-01-01T00:00:00Z"])
def test_the_past_and_this_moment_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has passed"):
        expires_us(text, NOW_US)


@pytest.mark.parametrize("text", ["999999999w", "9999-12-31"])
def test_what_is_beyond_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="days away"):
        expires_us(text, NOW_US)
