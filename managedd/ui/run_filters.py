"""Which runs a list shows: read from the page's address, written into it, and as the API is asked for them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from managedd import ids
from managedd.model.states import StateType
from managedd.wire.sorting import FlowRunSort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import MultiMapping

PAGE_SIZE: Final = 50
MAX_TEXT_CHARS: Final = 200
MAX_LISTED: Final = 50
MAX_OFFSET: Final = 10_000_000
STATES: Final = tuple(each.value for each in StateType)
SINCE: Final = {"1h": 3_600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "any": None}
"""Ranges back from now, in seconds."""
UNTIL: Final = {"now": 0, "1d": 86_400, "7d": 604_800, "any": None}
"""And ahead."""
SORTS: Final = {
    FlowRunSort.START_TIME_DESC.value: "Latest start first",
    FlowRunSort.START_TIME_ASC.value: "Earliest start first",
    FlowRunSort.EXPECTED_START_TIME_DESC.value: "Latest expected first",
    FlowRunSort.EXPECTED_START_TIME_ASC.value: "Earliest expected first",
    FlowRunSort.END_TIME_DESC.value: "Latest end first",
    FlowRunSort.NAME_ASC.value: "Name, A to Z",
    FlowRunSort.NAME_DESC.value: "Name, Z to A",
}
CHART_BACK_SECONDS: Final = 90 * 86_400
CHART_AHEAD_SECONDS: Final = 7 * 86_400
"""What a chart covers of any time."""
_BUCKET_SECONDS: Final = (120, 3_600, 21_600, 86_400)
_MOST_BUCKETS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """What somebody has chosen to see."""

    state: tuple[str, ...] = ()
    name: str = ""
    deployment: tuple[str, ...] = ()
    flow: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    since: str = "1d"
    until: str = "now"
    sort: str = FlowRunSort.START_TIME_DESC.value
    offset: int = 0

    @property
    def query(self) -> str:
        """What makes a page of this list, behind the `?`, without the offset; ends with `&` unless it is empty."""
        pairs = [
            (name, value)
            for name in ("state", "name", "deployment", "flow", "pool", "tag", "since", "until", "sort")
            for value in _listed(getattr(self, name))
            if value and (name not in _DEFAULTS or value != _DEFAULTS[name])
        ]
        return urlencode(pairs) + "&" if pairs else ""

    @property
    def is_narrow(self) -> bool:
        """Whether anything was chosen but the time and the order."""
        return any((self.state, self.name, self.deployment, self.flow, self.pool, self.tag))

    def with_state(self, state: str) -> RunFilter:
        """The same with the state chosen, or not any more; from its first page."""
        chosen = tuple(each for each in STATES if (each in self.state) != (each == state))
        return replace(self, state=chosen, offset=0)

    def with_since(self, since: str) -> RunFilter:
        """The same of another stretch of time."""
        return replace(self, since=since, offset=0)

    def body(self, now: datetime) -> dict[str, Any]:
        """The filters of `POST /flow_runs/filter` and its like."""
        runs: dict[str, Any] = {}
        if self.state:
            runs["state"] = {"type": {"any_": list(self.state)}}
        if self.name:
            runs["name"] = {"like_": self.name}
        if self.deployment:
            runs["deployment_id"] = {"any_": list(self.deployment)}
        if self.tag:
            runs["tags"] = {"all_": list(self.tag)}
        window = {}
        if (back := SINCE[self.since]) is not None:
            window["after_"] = (now - timedelta(seconds=back)).isoformat()
        if (ahead := UNTIL[self.until]) is not None:
            window["before_"] = (now + timedelta(seconds=ahead)).isoformat()
        if window:
            runs[self._time] = window
        found: dict[str, Any] = {"flow_runs": runs} if runs else {}
        if self.flow:
            found["flows"] = {"id": {"any_": list(self.flow)}}
        if self.pool:
            found["work_pools"] = {"name": {"any_": list(self.pool)}}
        return found

    @property
    def _time(self) -> str:
        """What a run's time is: that by which the list is in order, so that one index gives both."""
        return "start_time" if self.sort.startswith("START_TIME") else "expected_start_time"

    def history(self, now: datetime) -> dict[str, Any]:
        """What `POST /managed/flow_runs/count-by/time` is asked for: the runs of the list, by the same time, in whole intervals."""
        back, ahead = SINCE[self.since], UNTIL[self.until]
        first = now.timestamp() - (CHART_BACK_SECONDS if back is None else back)
        last = now.timestamp() + (CHART_AHEAD_SECONDS if ahead is None else ahead)
        seconds = next((each for each in _BUCKET_SECONDS if last - first <= each * _MOST_BUCKETS), _BUCKET_SECONDS[-1])
        start = int(first) // seconds
        return {
            **self.body(now),
            "by": self._time,
            "start": datetime.fromtimestamp(start * seconds, UTC).isoformat(),
            "interval_seconds": seconds,
            "intervals": int(last) // seconds - start + 1,
        }


_DEFAULTS: Final = {"since": "1d", "until": "now", "sort": FlowRunSort.START_TIME_DESC.value}


def read(query: MultiMapping[str]) -> RunFilter:
    """What the address asks for; what makes no sense is as if it were not there."""
    tags = [part.strip() for each in query.getall("tag", []) for part in each.split(",")]
    return RunFilter(
        state=tuple(each for each in STATES if each in {value.upper() for value in query.getall("state", [])}),
        name=query.get("name", "").strip()[:MAX_TEXT_CHARS],
        deployment=_ids(query.getall("deployment", [])),
        flow=_ids(query.getall("flow", [])),
        pool=_texts(query.getall("pool", [])),
        tag=_texts(tags),
        since=_one_of(query.get("since"), SINCE, _DEFAULTS["since"]),
        until=_one_of(query.get("until"), UNTIL, _DEFAULTS["until"]),
        sort=_one_of(query.get("sort"), SORTS, _DEFAULTS["sort"]),
        offset=_offset(query.get("offset", "")),
    )


def _listed(value: str | tuple[str, ...]) -> Sequence[str]:
    return value if isinstance(value, tuple) else (value,)


def _one_of(given: str | None, allowed: Any, default: str) -> str:
    return given if given is not None and given in allowed else default


def _ids(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids.canonical(each) for each in given if ids.is_uuid(each)))[:MAX_LISTED]


def _texts(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each[:MAX_TEXT_CHARS] for each in given if each))[:MAX_LISTED]


def _offset(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 8):
        return 0
    found = int(given)
    return found if found <= MAX_OFFSET else 0
