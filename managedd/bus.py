"""The bus carries wake-ups, never data: whoever wakes reads the rows.

A subscription is one flag that stays raised until it is taken, so a publisher never blocks, nothing grows, and a wake-up that
comes between two looks is never lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Topic(StrEnum):
    """What was committed."""

    RUNS = "runs"
    """A run was created or changed state: the runners look."""
    QUEUE = "queue"
    """A flow run of a queue or deployment is in a state other than Pending and Running: something may be due, or free: the dispatcher looks."""
    SLOTS = "slots"
    """A slot or a limit changed: waiting runs may go."""
    EXECUTIONS = "executions"
    """An execution was inserted, advanced, or asked to stop."""
    SCHEDULES = "schedules"
    """A deployment or a schedule changed."""
    EVENTS = "events"
    """Events were stored."""
    LOGS = "logs"
    """Log lines were stored."""
    KEYS = "keys"
    """A key was made or revoked, or its workspace removed."""
    SECRETS = "secrets"
    """There is something to encrypt, or to encrypt anew."""


class Subscription:
    """A raised-flag view of some topics."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    def take(self) -> bool:
        """Whether it was woken; the flag is down afterwards."""
        woken = self._event.is_set()
        self._event.clear()
        return woken

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Return True when woken, False when `timeout_seconds` passed; the flag is down afterwards."""
        if timeout_seconds is None:
            await self._event.wait()
        else:
            with anyio.move_on_after(timeout_seconds):
                await self._event.wait()
        # Asked of the flag, not of the scope: a wake-up in the tick of the timeout counts.
        return self.take()


class Bus:
    """In-process fan-out of wake-ups. Only touched from the event loop's thread."""

    def __init__(self) -> None:
        self._subscriptions: dict[Topic, set[Subscription]] = defaultdict(set)

    def publish(self, topics: Iterable[Topic]) -> None:
        """Every subscription to one of `topics` is awake afterwards."""
        for topic in topics:
            for subscription in self._subscriptions[topic]:
                subscription.wake()

    @contextmanager
    def subscribe(self, *topics: Topic) -> Iterator[Subscription]:
        """A subscription for as long as the block lasts."""
        subscription = Subscription()
        for topic in topics:
            self._subscriptions[topic].add(subscription)
        try:
            yield subscription
        finally:
            for topic in topics:
                self._subscriptions[topic].discard(subscription)
