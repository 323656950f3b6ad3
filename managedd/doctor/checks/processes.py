"""Looks at what runs as processes need; only where runs are processes."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anyio import to_thread

from managedd.doctor import inside as program
from managedd.doctor.checks.listening import PROCESS, NothingMore, listening_for_processes
from managedd.doctor.examination import NotApplicable
from managedd.doctor.judgement import processes as judge
from managedd.doctor.judgement import runs as judge_runs
from managedd.drivers import process_probe

if TYPE_CHECKING:
    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Patient

REACH_SECONDS = 5.0


async def isolation(patient: Patient) -> list[Finding]:
    """What has to be said."""
    return [judge.isolation(trusted=patient.settings.process.trusted)]


async def needs(patient: Patient) -> list[Finding]:
    """uv, and a Python."""
    settings = patient.settings
    found = await process_probe.needs(settings.runs.image, settings.process.python)
    return [judge.installer(found), judge.python(found, configured=settings.process.python)]


async def limits(patient: Patient) -> list[Finding]:
    """What the daemon can hold, or one that were started from here."""
    detail: dict[str, Any] = ((patient.status or {}).get("engine") or {}).get("detail") or {}
    if "unsupported" in detail:
        unsupported, limits_ = set(detail["unsupported"]), detail.get("limits") or {}
        held = {each for each in judge.LIMITED if each not in unsupported and limits_.get(each) == "control group"}
        return [judge.limits(held, whose="the daemon")]
    held_here = await to_thread.run_sync(process_probe.held_here)
    return [judge.limits(held_here, whose="a daemon started from here")]


async def api(patient: Patient) -> list[Finding]:
    """Whether a process of this host reaches the API where runs look for it."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            listening = await listening_for_processes(patient, stack)
            url = urlsplit(listening.url)
            target = {
                "kind": url.scheme,
                "host": url.hostname,
                "port": url.port or (443 if url.scheme == "https" else 80),
                "path": f"{url.path.rstrip('/')}/ready",
            }
            answer = await to_thread.run_sync(partial(program.tried, target, REACH_SECONDS), abandon_on_cancel=True)
            if listening.gave_way.is_set():
                raise NotApplicable("a daemon has started meanwhile: run managedd doctor again")
    except NothingMore as stop:
        return [stop.finding]
    return [
        judge_runs.api(
            answer, url=listening.url, real=listening.real, token=listening.token, name=PROCESS, blocked_by=None
        ),
        *judge_runs.port(listening.wanted_port, listening.port),
    ]
