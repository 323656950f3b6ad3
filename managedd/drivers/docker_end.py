"""How a container ended: from what the engine says, what the shim has reported, and what both leave open."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from managedd.clock import to_us
from managedd.model.drivers import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

REPORT_MAX_BYTES: Final = 64 * 1024
KILLED: Final = 137
UNKNOWN_TO_ENGINE: Final = 255
"""What engines write down for a container that they find dead after their own restart."""
PROBABLY_OOM: Final = 0.95
MAX_BYTES: Final = 1 << 50
MAX_US: Final = 253_402_300_799_999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the shim says of its run, each field well-formed or None. The run itself can write it: it decides nothing beyond this run."""

    installed_us: int | None = None
    install_error: str | None = None
    exit_code: int | None = None
    peak_memory_bytes: int | None = None
    oom_kills: int | None = None


def content_of(archive: bytes | None, *, max_bytes: int) -> bytes | None:
    """What the only file in the tar holds; None when that is no plain file, or larger. The tar's maker is not to be trusted."""
    if archive is None:
        return None
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            entry = tar.next()
            if entry is None or not entry.isreg() or entry.sparse is not None or entry.size > max_bytes:
                return None
            file = tar.extractfile(entry)
            return file.read(max_bytes) if file else None
    except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError, RecursionError):
        return None


def report_of(archive: bytes | None) -> Report:
    """The report in the tar that the engine gave; an empty one when there is none or it is not to be believed."""
    return parsed(content_of(archive, max_bytes=REPORT_MAX_BYTES))


def brief_of(stat: object) -> Report | None:
    """The report in the target of the link that the engine's words are of; None when there is no such link, or when it refers to the file."""
    target = stat.get("linkTarget") if isinstance(stat, dict) else None
    if not isinstance(target, str):
        return None
    # Engines make the target a whole path.
    content = target.rpartition("/")[2]
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed(content.encode()) if type(fields) is dict and "more" not in fields else None


def parsed(content: bytes | None) -> Report:
    """The report that these bytes are; an empty one when they are none, or not to be believed."""
    try:
        fields = json.loads(content) if content else None
    except (ValueError, RecursionError):
        return Report()
    if type(fields) is not dict or fields.get("version") != 1:
        return Report()
    error = fields.get("install_error")
    peak = whole(fields, "peak_memory_bytes", MAX_BYTES)
    return Report(
        installed_us=whole(fields, "installed_us", MAX_US),
        install_error=plain(error) if type(error) is str else None,
        exit_code=whole(fields, "exit_code", 255),
        peak_memory_bytes=whole(fields, "max_rss_bytes", MAX_BYTES) if peak is None else peak,
        oom_kills=whole(fields, "oom_kills", 1 << 40),
    )


def whole(fields: Mapping[str, Any], name: str, highest: int) -> int | None:
    """That field, when it is a whole number from 0 to `highest`."""
    value = fields.get(name)
    return value if type(value) is int and 0 <= value <= highest else None


def plain(text: str) -> str:
    """Text of a run, fit for a state message: bounded, and nothing that steers a terminal."""
    return "".join(c for c in text[:4000] if c.isprintable() or c in "\n\t").strip()


def status_of(container: Mapping[str, Any], report: Report, *, oom_event: bool, booted_us: int | None) -> ExitStatus:
    """The end of a container that the engine's inspection shows as ended.

    The evidence for out of memory, in this order: the engine saw it, the kernel counted it in the run's control group, or the main
    process was killed while the group was at its limit.
    """
    state = container["State"]
    code = int(state.get("ExitCode") or 0)
    started, finished = timestamp_us(state.get("StartedAt")), timestamp_us(state.get("FinishedAt"))
    limit = int(container.get("HostConfig", {}).get("Memory") or 0)
    at_limit = bool(limit) and (report.peak_memory_bytes or 0) >= limit * PROBABLY_OOM
    return ExitStatus(
        exit_code=code,
        oom_killed=bool(state.get("OOMKilled")) or oom_event or bool(report.oom_kills) or (code == KILLED and at_limit),
        peak_memory_bytes=report.peak_memory_bytes,
        started_at_us=started,
        finished_at_us=finished,
        host_restarted=(booted_us is not None and started is not None and started < booted_us)
        or (code == UNKNOWN_TO_ENGINE and report.exit_code is None),
        install_failed=report.install_error is not None,
        installed_at_us=report.installed_us,
        error=report.install_error or plain(str(state.get("Error") or "")) or None,
    )


def timestamp_us(text: object) -> int | None:
    """The engine's time of day; None for its zero time."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    try:
        return to_us(datetime.fromisoformat(text[:26].rstrip("Z") + text[26:].lstrip("0123456789")))
    except ValueError:
        return None
