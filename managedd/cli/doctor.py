"""`managedd doctor`."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import anyio

from managedd.cli.exits import FAILED
from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import print_json, print_table

if TYPE_CHECKING:
    from managedd.config import Settings
    from managedd.doctor.finding import Finding, Report

TITLES = {"data": "Data", "host": "Host", "engine": "Container engine", "runs": "What a run meets"}


def doctor(*, where: Where = HERE, json: Json = False) -> int:
    """Find out whether this host can run flows, and how to mend what can't. Nothing that runs is disturbed; exit code 1 says that there is a problem.

    Parameters
    ----------
    json
        Print JSON instead of tables.
    """
    from managedd.doctor.examination import Interrupted

    try:
        report = anyio.run(_examine, where.settings())
    except Interrupted:
        raise KeyboardInterrupt from None
    if json:
        print_json(report.as_json())
    else:
        _print(report)
    code = 0 if report.healthy else FAILED
    _leave_what_hangs(code)
    return code


def _leave_what_hangs(code: int) -> None:
    """Returns unless a look at a file system that hangs was left behind: the interpreter would wait for it at its end."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(1.0)
            if thread.is_alive():
                sys.stdout.flush()
                os._exit(code)


async def _examine(settings: Settings) -> Report:
    from rich.console import Console

    from managedd import observe
    from managedd.cli.patient import patient_of
    from managedd.doctor.examination import Check, examine
    from managedd.doctor.rounds import ROUNDS

    observe.configure("error", "auto")
    patient = patient_of(settings)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return await examine(patient, ROUNDS)
    with console.status("") as line:

        def begins(check: Check) -> None:
            line.update(f"looking at: {check.name}")

        return await examine(patient, ROUNDS, begins=begins)


def _print(report: Report) -> None:
    from managedd.doctor.finding import Level

    for group, title in TITLES.items():
        rows = [
            (finding.level.value, finding.name, _told(finding)) for finding in report.findings if finding.group == group
        ]
        if rows:
            print_table(title, ("level", "what", "seen, and how to mend it"), rows)
    counts = [
        f"{report.count(level)} {level.value}{'' if report.count(level) == 1 else 's'}"
        for level in (Level.PROBLEM, Level.WARNING, Level.NOTE)
    ]
    print(", ".join(counts))
    sys.stdout.flush()


def _told(finding: Finding) -> str:
    return finding.seen if finding.mend is None else f"{finding.seen}\n-> {finding.mend}"
