"""Our schedules beside those of the real server's own code, with every intended difference listed as data."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from managedd.errors import ManagedError
from managedd.model.schedules import from_json
from managedd.orchestration.recurrence import occurrences, validate

if TYPE_CHECKING:
    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

NEW_YORK = "America/New_York"
QUIET = "2026-05-04T10:20:30+00:00"
GAP = "2026-03-08T05:00:00+00:00"
FOLD = "2026-11-01T04:00:00+00:00"
NOVEMBER = "2026-11-20T00:00:00+00:00"
ANCHOR = "2026-01-01T14:00:00+00:00"  # 09:00 in New York

SAME: list[tuple[dict[str, Any], str]] = [
    *(
        ({"cron": expression, "timezone": zone}, QUIET)
        for expression in (
            "@daily", "@hourly", "@weekly", "@monthly", "@yearly", "0 9 * * 1-5", "*/7 * * * *", "0 0 L * *",
            "0 0 * * 5#3", "0 0 * * L5", "0 0 13 * 5", "0 9 * MAR,JUN THU", "* * * * * */20", "5 4 * * sun",
            "0 0 29 2 *", "15 1,13 1,15 * *",
        )
        for zone in (None, "UTC", NEW_YORK, "Asia/Kolkata")
    ),
    ({"cron": "0 0 13 * 5", "day_or": False}, QUIET),
    ({"cron": "30 1 * * *", "timezone": NEW_YORK}, FOLD),
    ({"cron": "0 9 * * *", "timezone": NEW_YORK}, FOLD),
    ({"cron": "0 9 * * *", "timezone": NEW_YORK}, GAP),
    ({"cron": "0 * * * *", "timezone": NEW_YORK}, GAP),
    *(
        ({"interval": seconds, "anchor_date": ANCHOR, "timezone": zone}, start)
        for seconds in (60.0, 3600.0, 5400.5, 86399.0)
        for zone in (None, "UTC", NEW_YORK)
        for start in (QUIET, GAP, FOLD)
        if (zone, start) != (NEW_YORK, FOLD)
    ),
    *(({"interval": 86400.0 * days, "anchor_date": ANCHOR, "timezone": NEW_YORK}, NOVEMBER) for days in (1, 1.5, 7)),
    ({"interval": 86400.0, "anchor_date": "2030-01-01T00:00:00+00:00"}, QUIET),
    *(
        ({"rrule": text, "timezone": zone}, QUIET)
        for text in (
            "FREQ=DAILY", "FREQ=WEEKLY;BYDAY=MO,WE", "FREQ=MONTHLY;BYMONTHDAY=-1", "RRULE:FREQ=HOURLY;INTERVAL=5",
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "DTSTART:20200101T073000Z\nRRULE:FREQ=DAILY",
            "DTSTART:20200101T073000\nRRULE:FREQ=WEEKLY;INTERVAL=2", "FREQ=YEARLY;BYMONTH=2,7;BYMONTHDAY=29",
            "DTSTART;TZID=Europe/Paris:20200101T090000\nRRULE:FREQ=DAILY;INTERVAL=3",
            "DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;UNTIL=20260508T000000Z",
            "DTSTART:20260501T000000\nRRULE:FREQ=DAILY;COUNT=6", "FREQ=DAILY;COUNT=6",
            "DTSTART:20200101T000000\nRRULE:FREQ=DAILY\nEXDATE:20260506T000000\nRDATE:20260505T120000",
            "RRULE:FREQ=DAILY\nEXRULE:FREQ=WEEKLY;BYDAY=SA,SU",
        )
        for zone in ("UTC", NEW_YORK)
    ),
    ({"rrule": "DTSTART:20200101T090000\nRRULE:FREQ=DAILY", "timezone": NEW_YORK}, FOLD),
    ({"rrule": "FREQ=DAILY;BYHOUR=1;BYMINUTE=30", "timezone": NEW_YORK}, FOLD),
]  # fmt: skip

# What differs on purpose: the schedule, from when, our first times and the peer's, in UTC, and why.
DIFFERENT: list[tuple[dict[str, Any], str, list[str], list[str], str]] = [
    (
        {"cron": "30 2 * * *", "timezone": NEW_YORK}, GAP,
        ["08 07:00", "09 06:30"], ["08 06:30", "09 06:30"],
        "a fixed hour in a gap: the peer is an hour early, we fire when the gap ends",
    ),
    (
        {"cron": "0 * * * *", "timezone": NEW_YORK}, FOLD,
        ["01 04:00", "01 05:00", "01 06:00", "01 07:00"], ["01 04:00", "01 05:00", "01 07:00", "01 08:00"],
        "an hourly one: the peer leaves out the second coming of the hour",
    ),
    (
        {"interval": 86400.0, "anchor_date": ANCHOR, "timezone": NEW_YORK}, QUIET,
        ["04 13:00", "05 13:00"], ["04 14:00", "05 14:00"],
        "a daily interval in summer, anchored at 09:00 in winter: the peer jumps in real time and fires at 10:00",
    ),
    (
        {"interval": 86400.0, "anchor_date": "2026-03-05T07:30:00+00:00", "timezone": NEW_YORK}, "2026-03-07T05:00:00+00:00",
        ["07 07:30", "08 07:00", "09 06:30"], ["07 07:30", "08 07:30", "09 07:30"],
        "a daily interval in a gap: the peer moves an hour on, and stays there",
    ),
    (
        {"interval": 86400.0, "anchor_date": "2026-10-30T05:30:00+00:00", "timezone": NEW_YORK}, FOLD,
        ["01 05:30", "02 06:30"], ["01 06:30", "02 06:30"],
        "a daily interval in a doubled hour: the peer fires at its second coming, we at its first as for any fixed hour",
    ),
    (
        {"interval": 3600.0, "anchor_date": ANCHOR, "timezone": NEW_YORK}, FOLD,
        ["01 04:00", "01 05:00", "01 06:00", "01 07:00"], ["01 04:00", "01 05:00", "01 07:00", "01 08:00"],
        "an hourly interval: the peer takes the second coming of the hour for a repetition",
    ),
    (
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "timezone": NEW_YORK}, GAP,
        ["08 07:00", "09 06:30"], ["08 06:30", "09 06:30"],
        "a rule in a gap: the peer is an hour early, we fire when the gap ends",
    ),
    (
        {"rrule": "FREQ=HOURLY", "timezone": NEW_YORK}, FOLD,
        ["01 04:00", "01 05:00", "01 06:00", "01 07:00"], ["01 04:00", "01 05:00", "01 07:00", "01 08:00"],
        "an hourly rule: the peer leaves out the second coming of the hour",
    ),
]  # fmt: skip

REFUSED_BY_BOTH: list[dict[str, Any]] = [
    {"cron": "1 2 3"}, {"cron": "@reboot"}, {"cron": "60 * * * *"}, {"cron": "R * * * *"}, {"cron": "H * * * *"},
    {"cron": "@daily", "timezone": "Mars/Base"}, {"cron": "@daily", "interval": 5}, {"cron": "@daily", "more": 1},
    {"interval": 0}, {"interval": -1}, {"interval": 5, "timezone": "Mars/Base"}, {"interval": "soon"}, {},
    {"rrule": "FREQ=NEVER"}, {"rrule": ""}, {"rrule": "FREQ=DAILY;BYHOUR=" + ",".join(["1"] * 4000)},
]  # fmt: skip
REFUSED_BY_US_ALONE: list[dict[str, Any]] = [
    {"cron": "R(0-5) * * * *"},  # random anew at every look
    {"rrule": "FREQ=DAILY;INTERVAL=0"},  # never moves on
    {"rrule": "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"},  # never fires, and takes minutes to say so
]
REFUSED_BY_THE_PEER_ALONE: list[dict[str, Any]] = [
    {"cron": "0 0 1W * *"},  # a newer croniter knows it
    {"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=DAILY;UNTIL=20300101T000000Z"},  # one with a zone, one without
]

PEER = """
import json, sys
from datetime import datetime
from pydantic import TypeAdapter
from prefect.server.schemas.schedules import SCHEDULE_TYPES
adapter = TypeAdapter(SCHEDULE_TYPES)
answers = []
for wire, start, limit in json.load(sys.stdin):
    try:
        schedule = adapter.validate_python(wire)
    except Exception as error:
        answers.append({"refused": str(error)})
        continue
    if start is None:
        answers.append({"dates": []})
        continue
    dates = schedule._get_dates_generator(n=limit, start=datetime.fromisoformat(start))
    answers.append({"dates": [date.timestamp() for date in sorted(dates)]})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def peer(prefect_venv: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Asks the real code for the first times of schedules, all in one process."""
    assert prefect_venv.prefect_python is not None
    home = tmp_path_factory.mktemp("peer")

    def ask(questions: list[tuple[dict[str, Any], str | None, int]]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [str(prefect_venv.prefect_python), "-W", "ignore", "-c", PEER],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            cwd=home,
            env={"HOME": str(home), "PREFECT_HOME": str(home), "PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    return ask


def ours(wire: dict[str, Any], start: str, limit: int) -> list[datetime]:
    """The same question to our code: its start is exclusive, the peer's is not."""
    return occurrences(from_json(wire), datetime.fromisoformat(start) - timedelta(microseconds=1), limit)


def short(moments: list[datetime]) -> list[str]:
    return [f"{moment:%d %H:%M}" for moment in moments]


def test_the_same_times_where_nothing_differs_on_purpose(peer: Any) -> None:
    limit = 12
    answers = peer([(wire, start, limit) for wire, start in SAME])
    for (wire, start), answer in zip(SAME, answers, strict=True):
        theirs = [datetime.fromtimestamp(stamp, UTC) for stamp in answer["dates"]]
        assert ours(wire, start, limit) == theirs, (wire, start)


def test_each_intended_difference_is_still_there_and_is_what_it_says(peer: Any) -> None:
    answers = peer([(wire, start, len(mine)) for wire, start, mine, _, _ in DIFFERENT])
    for (wire, start, mine, theirs, why), answer in zip(DIFFERENT, answers, strict=True):
        assert short(ours(wire, start, len(mine))) == mine, why
        assert short([datetime.fromtimestamp(stamp, UTC) for stamp in answer["dates"]]) == theirs, why


def refused_by_us(wire: dict[str, Any]) -> bool:
    try:
        validate(from_json(wire))
    except ManagedError:
        return True
    return False


def test_the_same_schedules_are_refused(peer: Any) -> None:
    for wires, by_us, by_peer in (
        (REFUSED_BY_BOTH, True, True),
        (REFUSED_BY_US_ALONE, True, False),
        (REFUSED_BY_THE_PEER_ALONE, False, True),
        ([wire for wire, _ in SAME], False, False),
    ):
        answers = peer([(wire, None, 1) for wire in wires])
        for wire, answer in zip(wires, answers, strict=True):
            assert (refused_by_us(wire), "refused" in answer) == (by_us, by_peer), (wire, answer)
