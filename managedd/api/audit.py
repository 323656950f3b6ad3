"""What stands in the audit log of a request: the change, in the transaction that makes it; a refusal, soon after.

Refusals are collected for a minute, so that whoever is refused a thousand times makes one row: what a stranger can make us write is bounded.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from managedd.api.guard import source
from managedd.api.rights import is_recorded, rule_of
from managedd.errors import ErrorCode, ManagedError
from managedd.model.access import Level
from managedd.observe import get_log
from managedd.store import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.api.context import Context
    from managedd.store.database import Database, Tx

T = TypeVar("T")

log = get_log("audit")

MINUTE_SECONDS: Final = 60.0
MAX_REFUSALS: Final = 1_000
"""Different ones in a minute; of more, only their number is logged."""
FORBIDDEN: Final = 403
UNAUTHORIZED: Final = 401
AUTHENTICATE: Final = "authenticate"
"""Stands for the operation where nobody came in."""


@dataclass(slots=True)
class Note:
    """What the audit log shall know of one request."""

    named: dict[str, str] = field(default_factory=dict)
    """What was made, beside what the path names."""
    is_written: bool = False


def recorded(ctx: Context, fn: Callable[[Tx], T]) -> Callable[[Tx], T]:
    """`fn`, which also leaves the request in the audit log, if it is one to be recorded and is not there yet."""
    if ctx.note.is_written or not is_recorded(ctx.operation) or _is_own_business(ctx):
        return fn

    def body(tx: Tx) -> T:
        result = fn(tx)
        audit.add(tx, [_entry(ctx, ctx.operation.status)])
        return result

    return body


def _is_own_business(ctx: Context) -> bool:
    """Whether a run asks for what concerns runs alone; what it changes of the workspace, a variable or a block, is recorded."""
    return ctx.actor.flow_run_id is not None and rule_of(ctx.operation).level < Level.BUILD


def _entry(ctx: Context, status: int) -> audit.Entry:
    actor = ctx.actor
    return audit.Entry(
        workspace_id=ctx.workspace if ctx.operation.scoped else None,
        actor=actor.kind,
        actor_id=actor.key_id or actor.flow_run_id,
        actor_name=actor.name or None,
        address=ctx.request.remote or None,
        operation=ctx.operation.line,
        named={**ctx.path_values, **ctx.note.named},
        status=status,
    )


@contextmanager
def refusals_noted(ctx: Context) -> Iterator[None]:
    """What is refused in the block because the actor may not do it is in the audit log soon."""
    try:
        yield
    except ManagedError as refusal:
        if refusal.code is ErrorCode.FORBIDDEN:
            # What it wanted to reach is its own choice of words: one row for all of it.
            ctx.services.refusals.note(replace(_entry(ctx, FORBIDDEN), named={}))
        raise


class Refusals:
    """Refusals that are not written yet. Belongs to the event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._counts: dict[tuple[object, ...], audit.Entry] = {}
        self._left_out = 0
        self._some = anyio.Event()

    def wrong_credential(self, address: str | None) -> None:
        """Somebody at the address has told a credential that is none."""
        self.note(
            audit.Entry(
                workspace_id=None, actor="unknown", address=source(address), operation=AUTHENTICATE, status=UNAUTHORIZED
            )
        )

    def note(self, entry: audit.Entry) -> None:
        """It was refused so many times more."""
        key = (entry.workspace_id, entry.actor, entry.actor_id, entry.address, entry.operation)
        known = self._counts.get(key)
        if known is None and len(self._counts) >= MAX_REFUSALS:
            self._left_out += 1
            return
        self._counts[key] = entry if known is None else replace(known, times=known.times + entry.times)
        self._some.set()

    async def run(self) -> None:
        """Writes for as long as it is not cancelled, and once more then; asleep while nobody is refused."""
        try:
            while True:
                await self._some.wait()
                await self.write()
                await anyio.sleep(MINUTE_SECONDS)
        finally:
            with anyio.CancelScope(shield=True):
                await self.write()

    async def write(self) -> None:
        """The store knows all refusals so far."""
        self._some = anyio.Event()
        counts, self._counts = self._counts, {}
        if self._left_out:
            log.warning("refusals.left_out", count=self._left_out)
            self._left_out = 0
        if counts:
            try:
                await self._db.write(lambda tx: audit.add(tx, counts.values()))
            except ManagedError:
                # The store takes nothing now: they wait for the next time, with those that come until then.
                for entry in counts.values():
                    self.note(entry)
                raise
