"""Looks at what runs as processes need; only where runs are processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from managedd.doctor import inside as program
from managedd.doctor.checks.listening import PROCESS, NothingMore, listening_for_processes
from managedd.doctor.examination import NotApplicable
from managedd.doctor.judgement import processes as judge
from managedd.doctor.judgement import runs as judge_runs
from managedd.drivers import process_probe
from managedd.drivers.process import environment_of_settings
from managedd.drivers.process_env import Environments, uv_program, wanted_by
from managedd.model.urls import mask_urls

if TYPE_CHECKING:
    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Patient

REACH_SECONDS = 5.0
INDEX_SECONDS = 30.0


async def isolation(patient: Patient) -> list[Finding]:
    """What has to be said."""
    return [judge.isolation(trusted=patient.settings.process.trusted)]


async def needs(patient: Patient) -> list[Finding]:
    """uv, and a Python."""
    settings = patient.settings
    found = await process_probe.needs(settings.runs.image, settings.process.python)
    return [judge.installer(found), judge.python(found, configured=settings.process.python)]


async def git(patient: Patient) -> list[Finding]:
    """What clones a flow's code."""
    return [judge.git(shutil.which("git", path=patient.settings.process.path))]


async def package_index(patient: Patient) -> list[Finding]:
    """Whether uv finds Prefect in the package index, as it would for an environment."""
    settings = patient.settings
    found = await process_probe.needs(settings.runs.image, settings.process.python)
    if found.uv is None or found.python is None or found.image_words is not None:
        raise NotApplicable("see installer and python for runs")
    words = await _index_words(patient, found.python)
    made = settings.process.env_dir or settings.store.data_dir / "environments"
    return [judge.package_index(words, has_environment=any(made.glob("prefect-*/bin")))]


async def _index_words(patient: Patient, python: str) -> str | None:
    """Why nothing can be had from the index; None when something can."""
    command = [uv_program(), "pip", "compile", "--quiet", "--no-deps", "--no-cache", "--no-header", "--python", python, "-"]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="managedd-doctor-") as folder:
        asked = Environments(
            Path(folder),
            uv=command[0],
            python=None,
            settings=environment_of_settings(patient.docker),
            ca_bundle=patient.docker.ca_bundle,
        )
        await to_thread.run_sync(asked.open)
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        try:
            with anyio.fail_after(INDEX_SECONDS):
                done = await anyio.run_process(
                    command,
                    input=wanted_by(patient.settings.runs.image).prefect.encode(),
                    check=False,
                    cwd=folder,
                    env={**base, "NO_COLOR": "1", "UV_HTTP_RETRIES": "0", **asked.installer_environment()},
                )
        except TimeoutError:
            return f"no answer within {INDEX_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace")
    return (
        mask_urls(" ".join(said.replace("×", "").replace("├─▶", "").replace("╰─▶", "").split()))
        or "uv does not say why"
    )


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
