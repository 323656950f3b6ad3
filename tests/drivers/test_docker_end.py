"""How a container ended, from evidence that may be missing or forged."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.drivers.docker_end import (
    REPORT_MAX_BYTES,
    Report,
    brief_of,
    content_of,
    report_of,
    status_of,
    timestamp_us,
)


def packed(content: bytes, **fields: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("report.json")
        entry.size = len(content)
        for name, value in fields.items():
            setattr(entry, name, value)
        tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return out.getvalue()


def container(**state: Any) -> dict[str, Any]:
    times = {"StartedAt": "2026-11-22T06:41:34.031789158Z", "FinishedAt": "2026-11-22T06:42:34.031789158Z"}
    return {"State": {"ExitCode": 0, "OOMKilled": False, "Error": "", **times, **state}, "HostConfig": {"Memory": 1000}}


def test_a_whole_report() -> None:
    fields = {
        "version": 1,
        "installed_us": 5,
        "exit_code": 3,
        "peak_memory_bytes": 7,
        "oom_kills": 0,
        "max_rss_bytes": 6,
    }
    assert report_of(packed(json.dumps(fields).encode())) == Report(
        installed_us=5, exit_code=3, peak_memory_bytes=7, oom_kills=0
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"version": 2}',
        b'{"version": true}',
        b"[" * 60_000,
        b'{"version": 1, "peak_memory_bytes": ' + b"9" * 5000 + b"}",
        b'{"version": 1, "installed_us": -1, "exit_code": 999, "install_error": 5, "peak_memory_bytes": "1", "oom_kills": true}',
        b'{"version": 1, "exit_code": 1e2, "peak_memory_bytes": 1e400}',
        b"x" * (REPORT_MAX_BYTES + 1),
    ],
)
def test_nonsense_tells_nothing(content: bytes) -> None:
    assert report_of(packed(content)) == Report()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_only_a_plain_file_is_read(kind: bytes) -> None:
    assert content_of(packed(b"", type=kind, linkname="/etc/shadow"), max_bytes=100) is None


@pytest.mark.parametrize(
    "stat",
    [
        None,
        [],
        "report",
        {},
        {"linkTarget": None},
        {"linkTarget": ""},
        {"linkTarget": "/etc/passwd"},
        {"linkTarget": "/var/opt/managedd/[1]"},
        {"linkTarget": "/var/opt/managedd/" + "[" * 4000},
        {"linkTarget": '/var/opt/managedd/{"version":1,"exit_code":1,"more":1}'},
    ],
)
def test_a_link_that_is_no_report(stat: object) -> None:
    assert brief_of(stat) is None


def test_a_link_that_claims_nonsense_tells_nothing() -> None:
    assert brief_of({"linkTarget": '/x/{"version":1,"exit_code":"0","oom_kills":-1}'}) == Report()
    assert brief_of({"linkTarget": '/x/{"version":2,"exit_code":0}'}) == Report()


@given(st.binary(max_size=2000))
def test_any_bytes_are_survived(data: bytes) -> None:
    assert report_of(data) == Report()
    assert isinstance(report_of(packed(data)), Report)


def test_what_a_run_claims_is_made_plain() -> None:
    report = report_of(
        packed(json.dumps({"version": 1, "install_error": "\x1b[31mred\x00\u202e\n" + "x" * 9000}).encode())
    )
    assert report.install_error is not None
    assert report.install_error.startswith("[31mred\nxxx")
    assert len(report.install_error) <= 4000


def test_out_of_memory_evidence() -> None:
    def oom(report: Report, *, event: bool = False, **state: Any) -> bool:
        return status_of(container(**state), report, oom_event=event, booted_us=None).oom_killed

    assert oom(Report(), OOMKilled=True)
    assert oom(Report(), event=True, ExitCode=137)
    assert oom(Report(oom_kills=1))
    assert oom(Report(peak_memory_bytes=960), ExitCode=137)
    assert not oom(Report(peak_memory_bytes=940), ExitCode=137)
    assert not oom(Report(peak_memory_bytes=960), ExitCode=1)
    assert not oom(Report(), ExitCode=137)


def test_a_host_that_restarted() -> None:
    started = timestamp_us("2026-11-22T06:41:34.031789158Z")
    assert started == 1_795_329_694_031_789
    assert status_of(container(), Report(), oom_event=False, booted_us=started + 1).host_restarted
    assert not status_of(container(), Report(), oom_event=False, booted_us=started).host_restarted
    assert status_of(container(ExitCode=255), Report(), oom_event=False, booted_us=None).host_restarted
    assert not status_of(container(ExitCode=255), Report(exit_code=255), oom_event=False, booted_us=None).host_restarted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T06:41:34Z", 1_795_329_694_000_000),
        ("2026-11-22T06:41:34.5Z", 1_795_329_694_500_000),
        ("2026-11-22T07:41:34.123456789+01:00", 1_795_329_694_123_456),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_times(text: str | None, expected: int | None) -> None:
    assert timestamp_us(text) == expected
