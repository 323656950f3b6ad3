"""What is read of log records without the validator is what the validator reads, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from managedd import ids
from managedd.wire.logs import LogCreate, plain_records, records_of

VALIDATOR = TypeAdapter(list[LogCreate])
RUN, TASK = ids.new_id(), ids.new_id()
PLAIN: dict[str, Any] = {
    "name": "prefect.flow_runs",
    "level": 20,
    "timestamp": "2026-11-22T04:00:28.283520Z",
    "message": "hello",
    "flow_run_id": RUN,
    "task_run_id": None,
}
TEXTS = st.sampled_from(["plain", "", "\0", "\x85\u2028", "\U0001f600", "\ud800", 'a"\\', "n" * 1_001])
IDS = st.sampled_from(
    [None, RUN, TASK, RUN.upper(), RUN.replace("-", ""), f"{{{RUN}}}", f"urn:uuid:{RUN}", f"{RUN} ", "", "x", 0, [RUN]]
)
TIMES = st.sampled_from(
    [
        "2026-11-22T04:00:28+00:00", "2026-11-22T04:00:28Z", "2026-11-22T04:00:28z", "2026-11-22 04:00:28Z", "2026-11-22T04:00:28",
        "2026-11-22T04:00:28.000001+00:00", "2026-11-22T04:00:28.5Z", "2026-11-22T04:00:28.1234567Z", "2026-11-22T04:00:28,123456Z",
        "2026-11-22T04:00:28.123456-00:00", "2026-11-22T04:00:28.123456+01:00", "2026-11-22T24:00:00Z", "2026-11-22T23:59:60Z",
        "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
        "1969-12-31T23:59:59.999999Z", "2026-W01-1T00:00:00.000000Z", "20261122T040028Z", "2026-11-22", "2026-11-22T04:00:28.12345６Z",
        "2026-11-22T04:00:28Z\n", 1_795_000_000, 1.5, "1795000000", None, "soon", True,
    ]
)  # fmt: skip
LEVELS = st.sampled_from([0, 20, -1, 2**31, 2**63 - 1, 2**63, 2**64, 20.0, 20.5, "20", True, None, [20]])
FIELDS = {"name": TEXTS | st.just(1), "message": TEXTS | st.none(), "level": LEVELS, "timestamp": TIMES, "flow_run_id": IDS, "task_run_id": IDS}  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    lines = []
    for _ in range(draw(st.integers(0, 3))):
        line = dict(PLAIN)
        for field in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2)):
            line[field] = draw(FIELDS[field])
        for field in draw(st.lists(st.sampled_from([*FIELDS, "unknown"]), max_size=1)):
            if draw(st.booleans()):
                line.pop(field, None)
            else:
                line.setdefault(field, 1)
        lines.append(line)
    return json.dumps(lines, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


def validated(body: bytes) -> Any:
    return records_of(VALIDATOR.validate_json(body))


@given(bodies())
def test_what_is_plain_is_read_as_the_validator_reads_it(body: bytes) -> None:
    plain = plain_records(body)
    assert plain is None or plain == validated(body)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"timestamp": "2026-11-22T04:00:28.000001+00:00"},
        {"timestamp": "1969-12-31T23:59:59.999999Z"},
        {"timestamp": "2026-11-22T04:00:28Z"},
        {"flow_run_id": None, "task_run_id": TASK},
        {"name": "n" * 100_000},
        {"message": "\0 and \u2028", "level": 0},
    ],
)
def test_what_clients_write_is_plain(change: dict[str, Any]) -> None:
    body = json.dumps([PLAIN, {**PLAIN, **change}]).encode()
    assert plain_records(body) == validated(body)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"name": "a", "level": 1, "level": 2, "message": "m", "timestamp": "2026-11-22T04:00:28Z", "flow_run_id": null, "task_run_id": null}]',
        b"[]",
        b" [ ] \n",
    ],
)
def test_what_json_leaves_open_is_read_as_the_validator_reads_it(body: bytes) -> None:
    assert plain_records(body) == validated(body)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[1]", b"[[]]", b"[NaN]", b'["\xff"]', b"[{}]", b"\xef\xbb\xbf[]", b"["]
)
def test_any_other_body_is_left_to_the_validator(body: bytes) -> None:
    assert plain_records(body) is None
