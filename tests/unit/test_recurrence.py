"""When schedules fire: changes of clocks, bounds of work, and refusals."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from managedd.clock import to_us
from managedd.errors import ErrorCode, ManagedError
from managedd.model.schedules import CronSchedule, IntervalSchedule, RRuleSchedule, Schedule
from managedd.orchestration.recurrence import MAX_RRULE_LENGTH, occurrences, validate

NEW_YORK = "America/New_York"
"""8 March 2026: 02:00 to 03:00 does not exist. 1 November 2026: 01:00 to 02:00 comes twice."""
EACH_SECOND = "".join(f";{part}=" + ",".join(map(str, range(60))) for part in ("BYMINUTE", "BYSECOND"))
GAP_DAY = datetime(2026, 3, 8, 5, tzinfo=UTC)
FOLD_DAY = datetime(2026, 11, 1, 4, tzinfo=UTC)
DAY_US = 86_400_000_000


def cron(expression: str, timezone: str | None = NEW_YORK, *, day_or: bool = True) -> CronSchedule:
    return CronSchedule(cron=expression, timezone=timezone, day_or=day_or)


def rule(text: str, timezone: str | None = NEW_YORK) -> RRuleSchedule:
    return RRuleSchedule(rrule=text, timezone=timezone)


def utc(schedule: Schedule, after: datetime, limit: int, until: datetime | None = None) -> list[str]:
    """Day and time in UTC, short enough to read."""
    return [f"{moment:%d %H:%M}" for moment in occurrences(schedule, after, limit, until)]


def local(schedule: Schedule, after: datetime, limit: int) -> list[str]:
    zone = ZoneInfo(schedule.timezone or "UTC")
    return [f"{moment.astimezone(zone):%d %H:%M %z}" for moment in occurrences(schedule, after, limit)]


class TestCron:
    def test_a_fixed_hour_fires_once_where_it_comes_twice(self) -> None:
        assert local(cron("30 1 * * *"), FOLD_DAY, 2) == ["01 01:30 -0400", "02 01:30 -0500"]

    def test_every_minute_of_a_fixed_hour_fires_once_where_it_comes_twice(self) -> None:
        assert local(cron("*/30 1 * * *"), FOLD_DAY, 3) == ["01 01:00 -0400", "01 01:30 -0400", "02 01:00 -0500"]

    def test_a_fixed_hour_in_a_gap_fires_at_its_end(self) -> None:
        assert local(cron("30 2 * * *"), GAP_DAY, 2) == ["08 03:00 -0400", "09 02:30 -0400"]

    def test_two_times_in_one_gap_fire_once(self) -> None:
        assert local(cron("*/20 2 * * *"), GAP_DAY, 2) == ["08 03:00 -0400", "09 02:00 -0400"]

    def test_the_end_of_the_gap_and_a_time_at_its_end_are_one(self) -> None:
        assert local(cron("0 2,3 * * *"), GAP_DAY, 3) == ["08 03:00 -0400", "09 02:00 -0400", "09 03:00 -0400"]

    def test_an_hourly_one_keeps_real_hours_where_an_hour_comes_twice(self) -> None:
        assert utc(cron("0 * * * *"), FOLD_DAY, 4) == ["01 05:00", "01 06:00", "01 07:00", "01 08:00"]

    def test_an_hourly_one_keeps_real_hours_across_a_gap(self) -> None:
        assert utc(cron("30 * * * *"), GAP_DAY, 4) == ["08 05:30", "08 06:30", "08 07:30", "08 08:30"]

    @pytest.mark.parametrize("minute", range(0, 180, 7))
    def test_an_hourly_one_goes_on_from_any_minute_of_the_doubled_hour(self, minute: int) -> None:
        after = datetime(2026, 11, 1, 4, 30, tzinfo=UTC) + timedelta(minutes=minute)
        found = occurrences(cron("15,45 * * * *"), after, 6)
        begin = after.replace(minute=0)
        steps = (begin + timedelta(minutes=15 + 30 * step) for step in range(20))
        assert found == [moment for moment in steps if moment > after][:6]

    @pytest.mark.parametrize("minute", range(0, 240, 11))
    def test_a_fixed_hour_never_fires_a_second_time_after_any_minute(self, minute: int) -> None:
        after = datetime(2026, 11, 1, 4, 0, tzinfo=UTC) + timedelta(minutes=minute)
        first = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
        expected = first if after < first else datetime(2026, 11, 2, 6, 30, tzinfo=UTC)
        assert occurrences(cron("30 1 * * *"), after, 1) == [expected]

    def test_a_day_that_a_zone_skipped_fires_when_the_next_begins(self) -> None:
        after = datetime(2011, 12, 29, 20, tzinfo=UTC)  # Apia went from the 29th to the 31st
        assert local(cron("0 9 * * *", "Pacific/Apia"), after, 2) == ["31 00:00 +1400", "31 09:00 +1400"]

    def test_half_an_hour_of_daylight_saving(self) -> None:
        after = datetime(2026, 10, 3, 14, tzinfo=UTC)  # Lord Howe: 02:00 becomes 02:30
        assert local(cron("10 2 * * *", "Australia/Lord_Howe"), after, 2) == ["04 02:30 +1100", "05 02:10 +1100"]

    def test_the_sixth_field_is_the_second(self) -> None:
        found = occurrences(cron("0 0 * * * 30", "UTC"), datetime(2026, 1, 1, tzinfo=UTC), 2)
        assert [f"{moment:%d %H:%M:%S}" for moment in found] == ["01 00:00:30", "02 00:00:30"]

    def test_every_second(self) -> None:
        after = datetime(2026, 1, 1, 0, 0, 0, 400_000, tzinfo=UTC)
        found = occurrences(cron("* * * * * *", None), after, 3)
        assert found == [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2, 3)]

    @pytest.mark.parametrize(
        ("alias", "expression"),
        [
            ("@hourly", "0 * * * *"),
            ("@daily", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@monthly", "0 0 1 * *"),
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("@Daily", "0 0 * * *"),
        ],
    )
    def test_aliases(self, alias: str, expression: str) -> None:
        assert utc(cron(alias), GAP_DAY, 9) == utc(cron(expression), GAP_DAY, 9)

    def test_day_of_month_or_weekday_and_both(self) -> None:
        after = datetime(2026, 11, 1, tzinfo=UTC)
        assert utc(cron("0 0 13 * 5", "UTC"), after, 3) == ["06 00:00", "13 00:00", "20 00:00"]
        assert occurrences(cron("0 0 13 * 5", "UTC", day_or=False), after, 2) == [
            datetime(2026, 11, 13, tzinfo=UTC),
            datetime(2027, 8, 13, tzinfo=UTC),
        ]

    @pytest.mark.parametrize(
        ("expression", "days"),
        [
            ("0 0 L * *", ["30 00:00", "31 00:00"]),
            ("0 0 * * 5#3", ["20 00:00", "18 00:00"]),
            ("0 0 * * L5", ["27 00:00", "25 00:00"]),
        ],
    )
    def test_last_and_nth_days(self, expression: str, days: list[str]) -> None:
        assert utc(cron(expression, "UTC"), datetime(2026, 11, 1, tzinfo=UTC), 2) == days

    def test_names_are_understood_and_are_no_random_fields(self) -> None:
        found = occurrences(cron("0 9 * MAR THU", "UTC"), datetime(2026, 3, 1, tzinfo=UTC), 1)
        assert found == [datetime(2026, 3, 5, 9, tzinfo=UTC)]

    def test_a_date_that_never_comes_gives_nothing_and_is_no_error(self) -> None:
        assert occurrences(cron("0 0 30 2 *"), GAP_DAY, 5) == []
        validate(cron("0 0 30 2 *"))

    @pytest.mark.parametrize(
        "expression",
        ["", "a", "1 2 3", "60 * * * *", "* 24 * * *", "*/0 * * * *", "@reboot", "* * * * * * * *", "0 0 31-1-2 * *"],
    )
    def test_what_is_no_expression_is_refused(self, expression: str) -> None:
        with pytest.raises(ManagedError, match=r"schedule\.cron: .*allowed: five fields") as caught:
            validate(cron(expression))
        assert caught.value.code is ErrorCode.INVALID

    @pytest.mark.parametrize(
        "expression", ["R * * * *", "r * * * *", "R(0-5) * * * *", "H * * * *", "H/5 * * * *", "0 1,H * * *"]
    )
    def test_random_and_hashed_forms_are_refused(self, expression: str) -> None:
        with pytest.raises(ManagedError, match="not offered"):
            validate(cron(expression))

    def test_an_endless_expression_is_refused(self) -> None:
        with pytest.raises(ManagedError, match="longer than"):
            validate(cron("0," * 400 + "0 * * * *"))


class TestInterval:
    def test_less_than_a_day_is_real_time(self) -> None:
        hourly = IntervalSchedule(interval_us=3_600_000_000, timezone=NEW_YORK)
        assert utc(hourly, FOLD_DAY, 4) == ["01 05:00", "01 06:00", "01 07:00", "01 08:00"]
        assert utc(hourly, GAP_DAY, 4) == ["08 06:00", "08 07:00", "08 08:00", "08 09:00"]

    def test_a_day_keeps_the_local_hour_of_its_anchor(self) -> None:
        anchor = to_us(datetime(2020, 1, 1, 9, tzinfo=ZoneInfo(NEW_YORK)))
        daily = IntervalSchedule(interval_us=DAY_US, anchor_us=anchor, timezone=NEW_YORK)
        assert local(daily, datetime(2026, 10, 31, 5, tzinfo=UTC), 3) == [
            "31 09:00 -0400",
            "01 09:00 -0500",
            "02 09:00 -0500",
        ]

    def test_a_day_in_a_gap_fires_at_its_end_and_does_not_drift(self) -> None:
        anchor = to_us(datetime(2026, 3, 1, 2, 30, tzinfo=ZoneInfo(NEW_YORK)))
        daily = IntervalSchedule(interval_us=DAY_US, anchor_us=anchor, timezone=NEW_YORK)
        assert local(daily, datetime(2026, 3, 7, 5, tzinfo=UTC), 3) == [
            "07 02:30 -0500",
            "08 03:00 -0400",
            "09 02:30 -0400",
        ]

    def test_a_day_in_a_doubled_hour_fires_once(self) -> None:
        anchor = to_us(datetime(2026, 10, 1, 1, 30, tzinfo=ZoneInfo(NEW_YORK)))
        daily = IntervalSchedule(interval_us=DAY_US, anchor_us=anchor, timezone=NEW_YORK)
        assert local(daily, FOLD_DAY, 2) == ["01 01:30 -0400", "02 01:30 -0500"]

    def test_the_grid_reaches_back_before_its_anchor(self) -> None:
        late = IntervalSchedule(interval_us=3_600_000_000, anchor_us=to_us(datetime(2030, 1, 1, 0, 20, tzinfo=UTC)))
        assert utc(late, datetime(2026, 1, 1, tzinfo=UTC), 2) == ["01 00:20", "01 01:20"]

    def test_the_smallest_and_the_largest(self) -> None:
        after = datetime(2026, 1, 1, tzinfo=UTC)
        smallest = occurrences(IntervalSchedule(interval_us=1), after, 3)
        assert [moment - after for moment in smallest] == [timedelta(microseconds=step) for step in (1, 2, 3)]
        largest = occurrences(IntervalSchedule(interval_us=1000 * 365 * DAY_US), after, 1000)
        assert 5 < len(largest) < 9


class TestRRule:
    def test_a_daily_rule_keeps_its_hour(self) -> None:
        nine = rule("DTSTART:20200101T090000\nRRULE:FREQ=DAILY")
        assert local(nine, datetime(2026, 10, 31, 5, tzinfo=UTC), 2) == ["31 09:00 -0400", "01 09:00 -0500"]

    @pytest.mark.parametrize(
        "start", ["DTSTART:20200101T073000Z", "DTSTART;TZID=Europe/Paris:20200101T073000", "DTSTART:20200101T073000"]
    )
    def test_the_digits_of_dtstart_are_local_times_of_the_schedule(self, start: str) -> None:
        assert local(rule(f"{start}\nRRULE:FREQ=DAILY"), GAP_DAY, 1) == ["08 07:30 -0400"]

    def test_gap_and_doubled_hour(self) -> None:
        assert local(rule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30"), GAP_DAY, 2) == ["08 03:00 -0400", "09 02:30 -0400"]
        assert local(rule("FREQ=DAILY;BYHOUR=1;BYMINUTE=30"), FOLD_DAY, 2) == ["01 01:30 -0400", "02 01:30 -0500"]

    @pytest.mark.parametrize("text", ["FREQ=HOURLY", "FREQ=MINUTELY;INTERVAL=60", "FREQ=SECONDLY;INTERVAL=3600"])
    def test_an_hourly_rule_keeps_real_hours(self, text: str) -> None:
        assert utc(rule(text), FOLD_DAY, 4) == ["01 05:00", "01 06:00", "01 07:00", "01 08:00"]
        assert utc(rule(text), GAP_DAY, 4) == ["08 06:00", "08 07:00", "08 08:00", "08 09:00"]

    def test_every_second_hour_is_a_set_of_fixed_hours(self) -> None:
        assert local(rule("FREQ=HOURLY;INTERVAL=2"), GAP_DAY, 3) == [
            "08 03:00 -0400",
            "08 04:00 -0400",
            "08 06:00 -0400",
        ]

    def test_sets_of_rules(self) -> None:
        text = "DTSTART:20200101T000000\nRRULE:FREQ=YEARLY\nRDATE:20270301T100000\nEXDATE:20280101T000000"
        found = occurrences(rule(text, "UTC"), datetime(2026, 11, 1, tzinfo=UTC), 3)
        assert [f"{moment:%Y-%m-%d %H}" for moment in found] == ["2027-01-01 00", "2027-03-01 10", "2029-01-01 00"]

    def test_an_excluded_rule(self) -> None:
        text = "RRULE:FREQ=DAILY\nEXRULE:FREQ=WEEKLY;BYDAY=SA,SU"
        found = occurrences(rule(text, "UTC"), datetime(2026, 11, 5, 12, tzinfo=UTC), 2)
        assert [f"{moment:%a}" for moment in found] == ["Fri", "Mon"]

    def test_the_last_working_day_of_the_month(self) -> None:
        found = occurrences(
            rule("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "UTC"), datetime(2026, 11, 1, tzinfo=UTC), 3
        )
        assert [f"{moment:%m-%d}" for moment in found] == ["11-30", "12-31", "01-29"]

    def test_until_and_count_end_a_rule(self) -> None:
        after = datetime(2026, 1, 1, tzinfo=UTC)
        assert utc(rule("FREQ=DAILY;UNTIL=20260103T000000", "UTC"), after, 9) == ["02 00:00", "03 00:00"]
        assert utc(rule("DTSTART:20251231T000000\nRRULE:FREQ=DAILY;COUNT=4", "UTC"), after, 9) == [
            "02 00:00",
            "03 00:00",
        ]
        assert occurrences(rule("FREQ=DAILY;COUNT=4", "UTC"), after, 9) == []
        validate(rule("FREQ=DAILY;COUNT=4", "UTC"))

    @pytest.mark.parametrize("freq", ["SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY"])
    def test_a_count_that_is_far_away_is_kept_exactly(self, freq: str) -> None:
        text = f"DTSTART:20250101T000000\nRRULE:FREQ={freq};INTERVAL=3;COUNT=1000"
        everything = occurrences(rule(text, "UTC"), datetime(2024, 1, 1, tzinfo=UTC), 2000)
        assert len(everything) == 1000
        for index in (1, 10, 500, 997):
            assert occurrences(rule(text, "UTC"), everything[index], 2000) == everything[index + 1 :]

    @pytest.mark.parametrize(
        "text",
        [
            "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30;BYSETPOS=-1" + EACH_SECOND,
            "RRULE:FREQ=DAILY\nEXRULE:FREQ=DAILY",
            "FREQ=SECONDLY;COUNT=1000000000;BYMONTH=1,2,3,4,5,6,7,8,9,10,11,12",
            "FREQ=YEARLY;BYDAY=MO;BYSETPOS=" + ",".join(str(200 + day % 166) for day in range(1500)),
            "FREQ=MONTHLY;COUNT=1000000000;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR=1,2,3,4,5,6;BYMINUTE="
            + ",".join(str(minute) for minute in range(60))
            + ";BYSECOND="
            + ",".join(str(second) for second in range(60)),
        ],
    )
    def test_hostile_rules_end_quickly_and_are_refused(self, text: str) -> None:
        began = time.process_time()
        assert occurrences(rule(text), GAP_DAY, 100) == []
        with pytest.raises(ManagedError, match=r"schedule\.rrule: no next time") as caught:
            validate(rule(text), GAP_DAY)
        assert caught.value.code is ErrorCode.INVALID
        assert time.process_time() - began < 20

    def test_more_times_of_a_day_than_can_be_made_at_once_are_refused(self) -> None:
        hours = ";BYHOUR=" + ",".join(map(str, range(24)))
        with pytest.raises(ManagedError, match=r"86,400 times of a day"):
            validate(rule("FREQ=DAILY" + hours + EACH_SECOND), GAP_DAY)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "never",
            "FREQ=FORTNIGHTLY",
            "FREQ=DAILY;INTERVAL=0",
            "FREQ=DAILY;INTERVAL=-1",
            "FREQ=DAILY;BYHOUR=five",
            "DTSTART:20200101T090000",
            "RRULE:FREQ=DAILY\nEXRULE:FREQ=DAILY;INTERVAL=0",
            "DTSTART:then\nRRULE:FREQ=DAILY",
            "FREQ=DAILY;=",
            "DTSTART:99999999T000000\nRRULE:FREQ=DAILY",
        ],
    )
    def test_what_is_no_rule_is_refused(self, text: str) -> None:
        with pytest.raises(ManagedError, match=r"schedule\.rrule") as caught:
            validate(rule(text))
        assert caught.value.code is ErrorCode.INVALID

    def test_the_length_is_bounded(self) -> None:
        long = "DTSTART:20200101T000000\nRDATE:" + ",".join(["20270101T000000"] * 400)
        assert len(long) < MAX_RRULE_LENGTH
        validate(rule(long))
        with pytest.raises(ManagedError, match="allowed: 6500"):
            validate(rule(long + ",20270101T000000" * 100))

    def test_the_end_of_the_calendar_is_an_end(self) -> None:
        found = occurrences(rule("DTSTART:99991231T235950\nRRULE:FREQ=SECONDLY", "UTC"), GAP_DAY, 100)
        assert len(found) == 10


EVERY_KIND = [
    cron("*/7 * * * *"),
    cron("15 1,2,3 * * *"),
    IntervalSchedule(interval_us=1_234_567_890, timezone=NEW_YORK),
    IntervalSchedule(interval_us=DAY_US, timezone=NEW_YORK),
    rule("FREQ=MINUTELY;INTERVAL=10"),
    rule("FREQ=DAILY;BYHOUR=1,2,3"),
]


class TestEverySchedule:
    @pytest.mark.parametrize("schedule", EVERY_KIND)
    @pytest.mark.parametrize("begin", [GAP_DAY - timedelta(hours=3), FOLD_DAY - timedelta(hours=3)])
    def test_asking_in_pieces_gives_the_same_as_asking_at_once(self, schedule: Schedule, begin: datetime) -> None:
        at_once = occurrences(schedule, begin, 40)
        pieces: list[datetime] = []
        while len(pieces) < 40:
            pieces += occurrences(schedule, pieces[-1] if pieces else begin, 1)
        assert pieces == at_once
        assert sorted(set(at_once)) == at_once
        assert all(moment.tzinfo is UTC and moment > begin for moment in at_once)

    @pytest.mark.parametrize("schedule", EVERY_KIND)
    def test_until_is_inclusive_and_after_is_not(self, schedule: Schedule) -> None:
        ten = occurrences(schedule, GAP_DAY, 10)
        assert occurrences(schedule, ten[0], 100, ten[5]) == ten[1:6]
        assert occurrences(schedule, ten[0], 100, ten[0]) == []
        assert occurrences(schedule, GAP_DAY, 0) == []

    @pytest.mark.parametrize(
        "schedule", [cron("0 0 * * *", "Mars/Base"), cron("@daily", "../etc/passwd"), rule("FREQ=DAILY", "EST5")]
    )
    def test_a_zone_that_is_none_is_refused(self, schedule: Schedule) -> None:
        with pytest.raises(ManagedError, match=r"schedule\.timezone: .* IANA") as caught:
            validate(schedule)
        assert caught.value.code is ErrorCode.INVALID

    def test_a_naive_start_is_utc(self) -> None:
        assert occurrences(cron("0 0 * * *", "UTC"), datetime(2026, 1, 1), 1) == [datetime(2026, 1, 2, tzinfo=UTC)]

    @pytest.mark.parametrize("expression", ["0 0 * * *", "* * * * *", "* * * * * *", "0 0 29 2 *"])
    def test_a_thousand_cron_times(self, expression: str) -> None:
        assert len(occurrences(cron(expression), GAP_DAY, 1000)) == 1000
