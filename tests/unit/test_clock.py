"""Times: microseconds, datetimes and the wire's text are the same moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from managedd.clock import from_us, iso, to_us

moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))


@given(moment=moments)
def test_the_wires_text_is_the_moment_with_all_its_microseconds(moment: datetime) -> None:
    text = iso(to_us(moment))
    assert text == moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    assert datetime.fromisoformat(text) == moment


@given(moment=moments, hours=st.integers(-14, 14))
def test_microseconds_are_of_the_moment_whatever_its_zone(moment: datetime, hours: int) -> None:
    assert from_us(to_us(moment)) == moment
    assert to_us(moment.astimezone(timezone(timedelta(hours=hours)))) == to_us(moment)
    assert to_us(moment.replace(tzinfo=None)) == to_us(moment)
