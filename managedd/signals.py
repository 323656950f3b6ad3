"""Signals: SIGTERM and SIGINT end the daemon, SIGHUP has it read its settings anew."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import anyio

from managedd.observe import get_log

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

log = get_log("signals")


class Signals:
    """What this process was told from outside."""

    def __init__(self) -> None:
        self.told_to_stop = anyio.Event()
        self._told_to_reload = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Listens until cancelled. Who presses Ctrl-C once more means it, who sends SIGTERM again is only impatient."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if not _has_a_terminal():
            # Of a terminal's own, SIGHUP says that it was closed: whatever runs in it ends.
            numbers.append(signal.SIGHUP)
        with anyio.open_signal_receiver(*numbers) as received:
            task_status.started()
            async for number in received:
                log.info("daemon.signalled", signal=signal.Signals(number).name)
                if number == signal.SIGHUP:
                    self._told_to_reload.set()
                    continue
                if self.told_to_stop.is_set() and number == signal.SIGINT:
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                    os.kill(os.getpid(), signal.SIGINT)
                self.told_to_stop.set()

    async def until_reload(self) -> None:
        """Returns when the settings are to be read anew; once for any number of signals that came meanwhile."""
        await self._told_to_reload.wait()
        self._told_to_reload = anyio.Event()


def _has_a_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):
        return False
