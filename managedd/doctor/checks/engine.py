"""Looks at the container engine."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from managedd.daemon import LAST_DRIVER
from managedd.doctor.checks.data import room
from managedd.doctor.examination import NotApplicable
from managedd.doctor.judgement import engine as judge
from managedd.doctor.patient import DEFAULT_WORKSPACE
from managedd.drivers.docker_end import timestamp_us
from managedd.drivers.docker_probe import DockerProbe, fault_of
from managedd.engine.limiter import host_limits
from managedd.engine_room import why_no_processes
from managedd.errors import ManagedError
from managedd.model.urls import mask_urls

if TYPE_CHECKING:
    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Patient


async def engine(patient: Patient) -> list[Finding]:
    """Whether it answers; what it says of itself, and what runs run in, is kept for those after."""
    probe = DockerProbe(patient.docker, url=patient.settings.docker.host)
    try:
        version = await probe.open()
        patient.engine = probe
        before = time.time()
        patient.info = await probe.info()
    except ManagedError as error:
        choice = _choose(patient, answers=False)
        return [judge.unusable(fault_of(error), error.message, needed=choice.driver != "process")]
    _choose(patient, answers=True)
    told_us = timestamp_us(patient.info.get("SystemTime"))
    # It told its time at some moment between the question and the answer.
    skew = None if told_us is None else _beyond(told_us / 1_000_000, before, time.time())
    return [
        judge.usable(version, patient.info),
        judge.clock("clock of the engine", skew, "the engine's clock"),
        *judge.leftovers(await probe.sweep()),
    ]


def _choose(patient: Patient, *, answers: bool) -> judge.Choice:
    status = patient.status or {}
    about = status.get("engine") or {}
    # Before the engine was opened, it is only what is tried first.
    running = about.get("driver") if about.get("version") else None
    workspaces = len(status.get("workspaces") or ()) or patient.workspaces or 1
    patient.choice = judge.choose(
        patient.settings.runs.driver,
        running=running,
        engine_answers=answers,
        refusal=why_no_processes(
            patient.settings,
            workspaces=workspaces,
            # A daemon that runs and has chosen nothing waits for the one that it names.
            last=about.get("driver") if patient.status else patient.facts.get(LAST_DRIVER),
            as_root=_whose(patient.settings.store.data_dir) == 0,
        ),
    )
    return patient.choice


def _whose(data_dir: Path) -> int:
    """The daemon's user: the directory's, and whoever asks where there is none yet."""
    try:
        return data_dir.stat().st_uid
    except OSError:
        return os.geteuid()


async def driver(patient: Patient) -> list[Finding]:
    """What runs run in."""
    choice = patient.choice or _choose(patient, answers=False)
    return [
        judge.driver(
            choice,
            wanted=patient.settings.runs.driver,
            daemon_runs=patient.status is not None,
            engine_answers=patient.engine is not None,
        )
    ]


def _beyond(moment: float, earliest: float, latest: float) -> float:
    """How far `moment` is outside of the interval."""
    return moment - earliest if moment < earliest else max(0.0, moment - latest)


async def control_groups(patient: Patient) -> list[Finding]:
    """Which limits it can hold."""
    return judge.control_groups(patient.info)


async def confinement(patient: Patient) -> list[Finding]:
    """What of the kernel's own the engine puts between a run and the host."""
    return judge.confinement([str(each) for each in patient.info.get("SecurityOptions") or []])


async def features(patient: Patient) -> list[Finding]:
    """How it is set up."""
    return judge.features(patient.info, runtime=patient.settings.docker.runtime)


async def disk(patient: Patient) -> list[Finding]:
    """Room for images and containers."""
    root = str(patient.info.get("DockerRootDir") or "")
    if not patient.probe.is_local or not root or not Path(root).is_absolute():
        raise NotApplicable("the engine is not on this host")
    if not await anyio.Path(root).exists():
        raise NotApplicable(f"{root} is not to be seen from here")
    return [
        await room(
            "disk of the engine",
            Path(root),
            "make room: docker system df shows what takes it, docker image prune removes images",
        )
    ]


async def image(patient: Patient) -> list[Finding]:
    """The image of runs that name none."""
    runs = patient.settings.runs
    found = await patient.probe.image(runs.image)
    digest = words = None
    if runs.pull_policy != "Never":
        try:
            digest = await patient.probe.registry_digest(runs.image)
        except ManagedError as error:
            words = mask_urls(error.message)
    made_us = timestamp_us((found or {}).get("Created"))
    return [
        judge.image(
            runs.image,
            runs.pull_policy,
            found=found,
            registry_digest=digest,
            registry_words=words,
            engine_architecture=patient.info.get("Architecture"),
            age_seconds=None if made_us is None else time.time() - made_us / 1_000_000,
        )
    ]


async def plans(patient: Patient) -> list[Finding]:
    """Whether the plans allow the image of runs that name none."""
    settings = patient.settings
    return [
        judge.plans(settings.runs.image, settings.plans_without_the_usual_image(), default_plan=settings.default_plan)
    ]


async def slots(patient: Patient) -> list[Finding]:
    """What the plans promise, against what is there."""
    settings = patient.settings
    memory = int(patient.info.get("MemTotal") or _host_memory_bytes())
    if not memory:
        raise NotApplicable("neither the engine nor the host says how much memory there is")
    workspace = DEFAULT_WORKSPACE if patient.plans.get(DEFAULT_WORKSPACE) in settings.plans else None
    plan = settings.default_plan if workspace is None else patient.plans[workspace]
    return [
        judge.slots(
            settings.plans[plan].concurrent_runs,
            plan,
            host_limits(
                settings.host, memory_bytes=memory, cpus=float(patient.info.get("NCPU") or os.cpu_count() or 1)
            ),
            memory_limit_bytes=settings.runs.memory_limit_bytes,
            cpu_limit=settings.runs.cpu_limit,
            host_memory_bytes=memory,
            workspace=workspace,
        )
    ]


def _host_memory_bytes() -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0
