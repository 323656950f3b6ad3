"""The order of those that wait: what a look at very many that have waited too long costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd.engine.order import OVERDUE_SECONDS, SECOND_US, Line, Order
from managedd.model.limits import AWAITING_HOST, Needs
from managedd.store.queue import Candidate, QueueHead

if TYPE_CHECKING:
    from managedd.engine.order import Waiting

NOW_US = 10**15
OVERDUE_US = NOW_US - int(2 * OVERDUE_SECONDS) * SECOND_US


def overdue(pool: str, count: int, *, largest: int) -> Line:
    """A pool of a workspace of its own, in which so many of 1 byte to that many have waited too long."""
    head = QueueHead(
        workspace_id=f"workspace of {pool}", plan="p", work_pool_id=pool, work_queue_id=f"queue of {pool}", priority=1,
        workspace_taken=1, workspace_given_us=OVERDUE_US, pool_limit=None, pool_taken=1, pool_given_us=OVERDUE_US,
        queue_limit=None, queue_taken=1, starts_taken=0.0, starts_as_of=0, is_paused=False,
    )  # fmt: skip

    def waiting(number: int) -> Waiting:
        return head, Candidate(
            id=f"{pool} {number}", due_at=OVERDUE_US + number, awaited_slot=False, orphaned=False, state_name=AWAITING_HOST,
            state_us=OVERDUE_US, needs=Needs(memory_bytes=1 + number % largest, cpus=1),
        )  # fmt: skip

    return Line([waiting(number) for number in range(count)])


class Counted(Order):
    compared = 0

    def _passes(self, late: Waiting, first: Waiting) -> bool:
        self.compared += 1
        return super()._passes(late, first)


def counted(lines: int, *, largest: int) -> Counted:
    made = [overdue(f"p{number}", 17, largest=largest) for number in range(lines)]

    def needs_of(candidate: Candidate) -> Needs:
        assert candidate.needs is not None
        return candidate.needs

    return Counted(made, NOW_US, needs_of)


@pytest.mark.parametrize("lines", [2, 40])
def test_whoever_needs_as_much_as_all_that_have_waited_is_compared_with_none(lines: int) -> None:
    order = counted(lines, largest=1)
    assert len(list(order)) == 17 * lines
    assert order.compared == 0


def test_once_the_host_is_kept_for_one_nobody_is_compared_any_more() -> None:
    order = counted(40, largest=3)
    looked = iter(order)
    next(looked)
    order.close()
    before = order.compared
    assert len(list(looked)) == 17 * 40 - 1
    assert order.compared == before
