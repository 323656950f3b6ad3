"""The examination: no check ends another, none takes longer than it may, and what was made is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd import __version__
from managedd.config import Settings, StoreSection
from managedd.doctor.examination import Check, Interrupted, NotApplicable, examine
from managedd.doctor.finding import Finding, Level, note, ok, problem
from managedd.doctor.patient import Patient
from managedd.doctor.rounds import ROUNDS
from managedd.drivers.docker_spec import DockerSettings
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    async def ask() -> dict[str, object]:
        raise ManagedError(ErrorCode.UNAVAILABLE, "nobody is there")

    return Patient(settings=Settings(store=StoreSection(data_dir=tmp_path)), docker=DockerSettings(), ask=ask)


def check(
    name: str, look: Callable[[Patient], Awaitable[list[Finding]]], *, seconds: float = 5.0, needs: tuple[str, ...] = ()
) -> Check:
    return Check(group="g", name=name, look=look, seconds=seconds, needs=needs)


def finds(*findings: Finding) -> Callable[[Patient], Awaitable[list[Finding]]]:
    async def look(_: Patient) -> list[Finding]:
        return list(findings)

    return look


def fails(error: Exception) -> Callable[[Patient], Awaitable[list[Finding]]]:
    async def look(_: Patient) -> list[Finding]:
        raise error

    return look


async def hangs(_: Patient) -> list[Finding]:
    await anyio.sleep_forever()
    return []


async def test_every_finding_is_there_in_order_and_knows_its_group(patient: Patient) -> None:
    began: list[str] = []
    checks = [check("a", finds(ok("a", "fine"), note("b", "aha"))), check("c", finds())]
    report = await examine(patient, checks, begins=lambda each: began.append(each.name))
    assert [(finding.group, finding.name) for finding in report.findings] == [("g", "a"), ("g", "b")]
    assert began == ["a", "c"]
    assert report.healthy


@pytest.mark.parametrize(
    ("look", "seconds", "words"),
    [
        (fails(ManagedError(ErrorCode.DRIVER, "the engine's words")), 5.0, "the engine's words"),
        (fails(KeyError("Nobody thought of it")), 5.0, "KeyError"),
        (fails(ExceptionGroup("g", [ExceptionGroup("h", [ValueError("deep")])])), 5.0, "ValueError: deep"),
        (hangs, 0.05, "no answer within"),
        (finds(problem("first", "broken", "mend it")), 5.0, "broken"),
    ],
)
async def test_one_that_fails_ends_no_other_but_those_that_need_it(
    patient: Patient, look: Callable[[Patient], Awaitable[list[Finding]]], seconds: float, words: str
) -> None:
    reached: list[str] = []

    async def other(_: Patient) -> list[Finding]:
        reached.append("other")
        return [ok("other", "fine")]

    with anyio.fail_after(5):
        report = await examine(
            patient,
            [
                check("first", look, seconds=seconds),
                check("second", other, needs=("first",)),
                check("third", other, needs=("second",)),
                check("other", other),
            ],
        )
    first, second, third, last = report.findings
    assert (first.level, words in first.seen) == (Level.PROBLEM, True), first
    assert first.mend
    assert second.seen == third.seen == "not checked: see first"
    assert second.level is Level.NOTE
    assert last.level is Level.OK
    assert reached == ["other"]
    assert not report.healthy


async def test_what_does_not_apply_is_no_problem(patient: Patient) -> None:
    report = await examine(patient, [check("a", fails(NotApplicable("no need"))), check("b", finds(), needs=("a",))])
    assert [finding.seen for finding in report.findings] == ["not checked: no need", "not checked: see a"]
    assert report.healthy


async def test_a_problem_beside_does_not_fail_the_check(patient: Patient) -> None:
    first = finds(ok("a", "fine"), problem("other", "broken", "mend it"))
    report = await examine(patient, [check("a", first), check("b", finds(ok("b", "fine")), needs=("a",))])
    assert report.findings[-1].level is Level.OK


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupt_waits_for_what_was_made_to_be_removed(patient: Patient, number: int) -> None:
    removed: list[str] = []

    async def makes(_: Patient) -> list[Finding]:
        try:
            os.kill(os.getpid(), number)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
                removed.append("container")
        return []

    async def never(_: Patient) -> list[Finding]:
        removed.append("went on")
        return []

    with pytest.raises(Interrupted), anyio.fail_after(10):
        await examine(patient, [check("a", makes), check("b", never)])
    assert removed == ["container"]


def test_needs_are_names_of_checks_before() -> None:
    seen: set[str] = set()
    for each in ROUNDS:
        assert set(each.needs) <= seen, each.name
        assert each.name not in seen
        seen.add(each.name)


async def test_the_shape_for_programs(patient: Patient) -> None:
    report = await examine(patient, [check("a", finds(problem("a", "broken", "mend it", how=1)))])
    assert report.as_json() == {
        "version": __version__,
        "healthy": False,
        "counts": {"ok": 0, "note": 0, "warning": 0, "problem": 1},
        "findings": [
            {"name": "a", "level": "problem", "seen": "broken", "mend": "mend it", "facts": {"how": 1}, "group": "g"}
        ],
    }


HANGS = """
import sys, time
from anyio import to_thread
from managedd.cli.app import run
from managedd.doctor import rounds
from managedd.doctor.examination import Check

async def look(patient):
    await to_thread.run_sync(time.sleep, 600, abandon_on_cancel=True)

rounds.ROUNDS = (Check(group="data", name="hanging", look=look, seconds=0.1),)
sys.exit(run(["doctor", "--data-dir", sys.argv[1]]))
"""


def test_a_file_system_that_hangs_does_not_hang_the_doctor(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "hanging   no answer within" in done.stdout
    assert "1 problem, 0 warnings, 0 notes" in done.stdout
