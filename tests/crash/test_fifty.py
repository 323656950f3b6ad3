"""Fifty runs at once on ten slots, the daemon killed in the middle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.crash.place import Place

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@pytest.mark.timeout(240)
def test_fifty_runs_on_ten_slots_with_a_kill_in_the_middle(place: Place) -> None:
    runs = place.submit(50, lines=10, pause=0.05)

    def count(sql: str) -> int:
        return int(place.daemon.query(f"SELECT count(*) AS n FROM flow_runs WHERE {sql}")[0]["n"])

    most = 0
    deadline = time.monotonic() + 90
    while count("state_type = 'COMPLETED'") < 15:
        most = max(most, count("state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"))
        assert time.monotonic() < deadline, place.daemon.log_tail()
        time.sleep(0.05)
    place.daemon.kill()
    place.check_torn()
    assert sum(place.live_containers().values()) <= 10
    place.daemon.start()
    while count("state_type = 'COMPLETED'") < 50:
        most = max(most, count("state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"))
        assert time.monotonic() < deadline + 90, place.daemon.log_tail()
        time.sleep(0.05)
    assert most == 10
    place.wait_all(runs)
    place.check_whole(runs, lines=10)
