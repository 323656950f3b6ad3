"""The doctor over the API: one examination at a time, and the last report for everybody who may see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.wire.doctor import DoctorReport, DoctorState

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

REPORT: dict[str, Any] = {
    "version": "0", "healthy": True, "counts": {"ok": 1},
    "findings": [{"name": "disk", "level": "ok", "seen": "there", "mend": None, "facts": {}, "group": "host"}],
}  # fmt: skip


async def test_one_examination_at_a_time_and_its_report_is_kept(api: ApiClient) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def examine() -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return REPORT

    api.services.examinations.examine = examine
    assert await api.get("/managed/doctor") == (200, {"report": None, "is_under_way": False})
    made: list[tuple[int, Any]] = []

    async def ask() -> None:
        made.append(await api.post("/managed/doctor"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await begun.wait()
        assert (await api.get("/managed/doctor"))[1]["is_under_way"]
        assert (await api.post("/managed/doctor"))[0] == 409
        go_on.set()
    ((status, report),) = made
    assert status == 200
    DoctorReport.model_validate(report)
    assert report["findings"] == REPORT["findings"]
    _, state = await api.get("/managed/doctor")
    DoctorState.model_validate(state)
    assert state == {"report": report, "is_under_way": False}


async def test_an_examination_that_fails_keeps_nobody_from_the_next(api: ApiClient) -> None:
    assert (await api.post("/managed/doctor"))[0] == 503

    async def fails() -> dict[str, Any]:
        raise RuntimeError("secret inside")

    api.services.examinations.examine = fails
    status, body = await api.post("/managed/doctor")
    assert status == 500
    assert "secret" not in str(body)
    assert not api.services.examinations.is_under_way
