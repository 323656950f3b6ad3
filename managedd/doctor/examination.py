"""The examination: every check in its turn, each bounded in time, none able to end another."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from managedd.doctor.finding import NOT_CHECKED, Finding, Level, Report, not_checked, problem
from managedd.errors import ManagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from managedd.doctor.patient import Patient


class NotApplicable(Exception):
    """Nothing to be checked here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look at one thing. A check fails by a problem of its own name; then those that need it are not checked."""

    group: str
    name: str
    look: Callable[[Patient], Awaitable[list[Finding]]]
    seconds: float = 15.0
    """How long it may take; what it cleans up afterwards is not counted."""
    needs: tuple[str, ...] = ()
    driver: str | None = None
    """Only where runs run in this; what the other one needs is nobody's business there."""

    def concerns(self, patient: Patient) -> bool:
        """Whether it is to be made. As long as nothing is chosen, containers are what is wanted."""
        chosen = patient.choice.driver if patient.choice is not None else None
        return self.driver in {None, chosen or "docker"}


class Interrupted(BaseException):
    """A signal ended the examination; all that it had made is removed."""


async def examine(
    patient: Patient,
    checks: Sequence[Check],
    *,
    begins: Callable[[Check], None] = lambda _: None,
    interruptible: bool = True,
) -> Report:
    """The report of all checks. Raises Interrupted after SIGINT, SIGTERM or SIGHUP, if it shall listen to them, once everything made was removed."""
    findings: list[Finding] = []
    if not interruptible:
        await _all_and_close(patient, checks, begins, findings)
        return Report(findings=tuple(findings))
    interrupted = False
    async with anyio.create_task_group() as tasks:
        work = anyio.CancelScope()

        async def listen() -> None:
            nonlocal interrupted
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                listening.set()
                async for _ in signals:
                    interrupted = True
                    work.cancel()

        listening = anyio.Event()
        tasks.start_soon(listen, name="signals")
        await listening.wait()
        with work:
            await _all_and_close(patient, checks, begins, findings)
        tasks.cancel_scope.cancel()
    if interrupted:
        raise Interrupted
    return Report(findings=tuple(findings))


async def _all_and_close(
    patient: Patient, checks: Sequence[Check], begins: Callable[[Check], None], findings: list[Finding]
) -> None:
    try:
        await _all(patient, checks, begins, findings)
    finally:
        with anyio.CancelScope(shield=True):
            await patient.close()


async def _all(
    patient: Patient, checks: Sequence[Check], begins: Callable[[Check], None], findings: list[Finding]
) -> None:
    failed: dict[str, str] = {}
    for check in checks:
        if not check.concerns(patient):
            continue
        because = next((failed[name] for name in check.needs if name in failed), None)
        if because is None:
            begins(check)
            found = await _one(patient, check)
        else:
            found = [not_checked(check.name, f"see {because}")]
        own = next((finding for finding in found if finding.name == check.name), None)
        if own is not None and (own.level is Level.PROBLEM or own.seen.startswith(NOT_CHECKED)):
            # Whoever needs this one is sent to where it began.
            failed[check.name] = because or check.name
        findings += (replace(finding, group=check.group) for finding in found)


async def _one(patient: Patient, check: Check) -> list[Finding]:
    found: list[Finding] | None = None
    try:
        with anyio.move_on_after(check.seconds):
            found = await check.look(patient)
    except NotApplicable as reason:
        return [not_checked(check.name, str(reason))]
    except ManagedError as error:
        return [problem(check.name, error.message, "see what it says, then run managedd doctor again")]
    except Exception as error:
        # One check that stumbles over something that nobody thought of must not hide what the others find.
        fault = _first(error) if isinstance(error, ExceptionGroup) else error
        return [
            problem(
                check.name,
                f"the check itself failed: {type(fault).__name__}: {fault}",
                "please report this: managedd doctor does not know such a host",
            )
        ]
    if found is None:
        return [
            problem(
                check.name,
                f"no answer within {check.seconds:.0f} s",
                "what is asked here hangs: look at its own log, and at the host's load",
            )
        ]
    return found


def _first(group: ExceptionGroup[Exception]) -> Exception:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, ExceptionGroup) else inner
