"""Counts of runs over time, and what runs used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd.store import samples
from managedd.wire.managed import ExecutionResources, RunsOfInterval
from tests.api.deployed import deploy, pool_of, run_it
from tests.api.test_managed import claim

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def run_at(api: ApiClient, flow: str, moment: datetime, **values: Any) -> dict[str, Any]:
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": moment.isoformat()}}
    code, run = await api.post("/flow_runs/", {"flow_id": flow, "state": state, **values})
    assert code == 201
    found: dict[str, Any] = run
    return found


async def test_runs_are_counted_where_they_were_expected_by_the_state_they_are_in(
    api: ApiClient, other: ApiClient
) -> None:
    flow = (await api.post("/flows/", {"name": "f"}))[1]["id"]
    start = datetime(2026, 11, 1, tzinfo=UTC)
    await run_at(api, flow, start)
    await run_at(api, flow, start + timedelta(minutes=59))
    failed = await run_at(api, flow, start + timedelta(minutes=61), tags=["mine"])
    await api.post(f"/flow_runs/{failed['id']}/set_state", {"state": {"type": "FAILED"}, "force": True})
    await run_at(api, flow, start + timedelta(hours=2))
    await run_at(api, flow, start - timedelta(seconds=1))
    asked = {"start": start.isoformat(), "interval_seconds": 3600, "intervals": 2}

    code, found = await api.post("/managed/flow_runs/count-by/time", asked)

    assert code == 200
    TypeAdapter(list[RunsOfInterval]).validate_python(found)
    assert [each["counts"] for each in found] == [{"SCHEDULED": 2}, {"FAILED": 1}]
    assert [each["start"][:16] for each in found] == ["2026-11-01T00:00", "2026-11-01T01:00"]
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    started = {**asked, "by": "start_time", "start": (now - timedelta(hours=1)).isoformat(), "intervals": 3}
    late = await run_at(api, flow, start, tags=["late"])
    await api.post(f"/flow_runs/{late['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    counted = (
        await api.post("/managed/flow_runs/count-by/time", {**started, "flow_runs": {"tags": {"all_": ["late"]}}})
    )[1]
    assert sum(each["counts"].get("RUNNING", 0) for each in counted) == 1, "it counts by when it began"
    assert (await api.post("/managed/flow_runs/count-by/time", {**asked, "by": "created"}))[0] == 422
    tagged = await api.post("/managed/flow_runs/count-by/time", {**asked, "flow_runs": {"tags": {"all_": ["mine"]}}})
    assert [each["counts"] for each in tagged[1]] == [{}, {"FAILED": 1}]
    elsewhere = await other.post("/managed/flow_runs/count-by/time", asked)
    assert [each["counts"] for each in elsewhere[1]] == [{}, {}]
    assert (await api.post("/managed/flow_runs/count-by/time", {**asked, "intervals": 501}))[0] == 422
    far = await api.post(
        "/managed/flow_runs/count-by/time", {**asked, "start": "9999-12-31T00:00:00Z", "intervals": 500}
    )
    assert far[0] == 422


async def test_what_a_run_used_is_answered_by_attempt(api: ApiClient, other: ApiClient) -> None:
    await pool_of(api)
    run = await run_it(api, await deploy(api, work_pool_name="mine", parameters={"n": 1}))
    execution = await claim(api, run)
    await api.services.db.write(lambda tx: samples.add(tx, {execution.id: [(1_000_000, 5, 2_500_000)]}))

    code, found = await api.get(f"/managed/flow_runs/{run['id']}/resources")

    assert code == 200
    (used,) = TypeAdapter(list[ExecutionResources]).validate_python(found)
    assert (str(used.execution_id), used.attempt) == (execution.id, 1)
    assert [(each.memory_bytes, each.cpu_seconds) for each in used.samples] == [(5, 2.5)]
    assert (await other.get(f"/managed/flow_runs/{run['id']}/resources"))[0] == 404
