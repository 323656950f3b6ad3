"""For whom the host's room is kept, and from whom.

Whoever has waited for the host long enough is passed by nobody. But a run may wait for another one that it has made, and hold the very room
that is kept: then the one would wait for the other for ever. So children pass as long as their parent's room is needed. The children of a
parent beside whom there is room enough do not: else they would take each place that others leave.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from managedd.store import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.engine.limiter import Limiter
    from managedd.model.limits import Needs
    from managedd.store.database import Tx
    from managedd.store.families import WaitingParent
    from managedd.store.queue import Candidate


class Keeping:
    """What is kept in one transaction: nothing, until it is for somebody."""

    def __init__(self, tx: Tx, limiter: Limiter) -> None:
        self._tx = tx
        self._limiter = limiter
        self._whose: Candidate | None = None
        self._needs: Needs | None = None

    def keep(self, candidate: Candidate, needs: Needs) -> bool:
        """All that is free and will be is kept for the candidate. False: it is for one before it, or the candidate has no room beside its
        own parents, and they are who it waits for."""
        if self._needs is not None or not self._could_fit(needs, list(self._above(candidate))):
            return False
        self._whose, self._needs = candidate, needs
        return True

    def is_from(self, candidate: Candidate) -> bool:
        """Whether the candidate must not take what is free."""
        if self._needs is None:
            return False
        return candidate.parent_id is None or candidate.parent_id in self._staying

    @cached_property
    def _parents(self) -> dict[str, WaitingParent]:
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

    def _above(self, candidate: Candidate) -> Iterator[WaitingParent]:
        """Its parent, that one's, and so on."""
        above = candidate.parent_id
        while above is not None and (parent := self._parents.get(above)) is not None:
            yield parent
            above = parent.parent_id

    def _could_fit(self, needs: Needs, beside: list[WaitingParent]) -> bool:
        return self._limiter.could_fit(needs, beside=(parent.needs for parent in beside))
