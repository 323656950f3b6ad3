"""For whom the host's room is kept, and from whom.

Whoever has waited for the host long enough is passed by nobody. But a run may wait for another one that it has made, and hold the very room
that is kept: then the one would wait for the other for ever. So children pass as long as their parent's room is needed. The children of a
parent beside whom there is room enough do not: else they would take each place that others leave. Only where that would bring nobody on,
these go all the same: whom the one waits for may wait for them.

And room that is of no use to the one, as it would be left over whoever ends first, is kept from no other workspace.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from managedd.model.limits import SLACK, Needs, left_over
from managedd.store import families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from managedd.engine.limiter import Limiter
    from managedd.store.database import Tx
    from managedd.store.families import Holder
    from managedd.store.queue import Candidate, QueueHead

MEMORY_UNIT: Final = 1 << 20
CPU_UNIT: Final = 0.001


class Keeping:
    """What is kept in one transaction: nothing, until it is for somebody."""

    def __init__(self, tx: Tx, limiter: Limiter) -> None:
        self._tx = tx
        self._limiter = limiter
        self._whose: Candidate | None = None
        self._workspace_id: str | None = None
        self._needs: Needs | None = None
        self._over: tuple[Needs, Needs] | None = None
        """What is free, and how much of that is of no use to the one."""

    def keep(self, head: QueueHead, candidate: Candidate, needs: Needs) -> bool:
        """All that is free and will be is kept for the candidate. False: it is for one before it, or the candidate has no room beside its
        own parents, and they are who it waits for."""
        if self._needs is not None or not self._could_fit(needs, list(self._above(candidate))):
            return False
        self._whose, self._workspace_id, self._needs = candidate, head.workspace_id, needs
        return True

    def is_from(self, head: QueueHead, candidate: Candidate) -> bool:
        """Whether the candidate must not take what is free."""
        if self._needs is None:
            return False
        if candidate.parent_id is not None and candidate.parent_id not in self._staying:
            return False
        return not self._is_left_over(head, candidate.needs)

    def _is_left_over(self, head: QueueHead, needs: Needs | None) -> bool:
        """Whether a run of that queue takes room alone, and only such as nobody waits for. Where parents must leave, their children may."""
        if needs is None or needs.varies or head.workspace_id == self._workspace_id or self.leaving():
            return False
        free = self._limiter.free()
        if self._over is None or self._over[0] != free:
            self._over = free, self._left_of(free)
        over = self._over[1]
        return needs.memory_bytes <= over.memory_bytes and needs.cpus <= over.cpus + SLACK

    def _left_of(self, free: Needs) -> Needs:
        assert self._needs is not None
        holders = families.holders(self._tx)
        if any(holder.parent_id is not None for holder in holders):
            # Who has made one run makes others, and ends when these have had room.
            return Needs(memory_bytes=0, cpus=0.0)
        held = [holder.needs for holder in holders]
        memory = left_over(
            self._needs.memory_bytes - free.memory_bytes, (one.memory_bytes for one in held), MEMORY_UNIT
        )
        cpus = left_over(self._needs.cpus - free.cpus, (one.cpus for one in held), CPU_UNIT)
        return Needs(memory_bytes=int(memory), cpus=cpus)

    def leaving(self) -> set[str]:
        """Parents whose room is needed by the one for whom room is kept."""
        return self._parents.keys() - self._staying

    def stands_still(self) -> bool:
        """Whether what is kept brings nobody on. Either all that hold room may wait for those below them: who does not comes to an end by
        itself. Or those below who must leave have no room until who stays has ended, whoever else does."""
        if all(holder.run_id in self._parents for holder in families.holders(self._tx)):
            return True
        below, beside = families.needs_below(self._tx, self.leaving()), list(self._parents.values())
        return bool(below) and not any(needs is None or self._could_fit(needs, beside) for needs in below)

    @cached_property
    def _parents(self) -> dict[str, Holder]:
        return {parent.run_id: parent for parent in families.waiting_parents(self._tx)}

    @cached_property
    def _staying(self) -> set[str]:
        """Parents beside whom the one for whom room is kept fits all the same: its own, and then, as they were made, whom there is room for.
        A parent is among them only with its own, so nobody else waits for one of them."""
        assert self._whose is not None and self._needs is not None
        staying = list(self._above(self._whose))
        for parent in self._parents.values():
            if parent in staying:
                continue
            if not self._could_fit(self._needs, [*staying, parent]):
                break
            staying.append(parent)
        return {parent.run_id for parent in staying}

    def _above(self, candidate: Candidate) -> Iterator[Holder]:
        """Its parent, that one's, and so on."""
        return chain_of(self._parents, candidate.parent_id)

    def _could_fit(self, needs: Needs, beside: list[Holder]) -> bool:
        return self._limiter.could_fit(needs, beside=(parent.needs for parent in beside))


def rooms(tx: Tx, limiter: Limiter) -> dict[str, Needs]:
    """What the host has at all beside each run that holds room, and beside those that this one was made by."""
    holders = {holder.run_id: holder for holder in families.holders(tx)}
    return {run_id: limiter.room(above.needs for above in chain_of(holders, run_id)) for run_id in holders}


def chain_of(holders: Mapping[str, Holder], run_id: str | None) -> Iterator[Holder]:
    """That run, who has made it, and so on. A circle of parents, which only broken data has, ends too."""
    seen: set[str] = set()
    while run_id is not None and run_id not in seen and (holder := holders.get(run_id)) is not None:
        yield holder
        seen.add(run_id)
        run_id = holder.parent_id
