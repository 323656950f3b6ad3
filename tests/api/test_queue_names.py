"""A queue's name stands in the path of URLs, wherever the queue comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.deployed import deploy

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", [".", ".."])
async def test_no_queue_is_called_like_a_place_in_a_path(api: ApiClient, name: str) -> None:
    assert (await api.post("/work_pools/", {"name": "pool", "type": "process"}))[0] == 201
    assert (await api.post("/work_pools/pool/queues", {"name": name}))[0] == 422
    assert (await api.post("/work_queues/", {"name": name}))[0] == 422
    assert (await api.post("/work_pools/pool/queues", {"name": "good"}))[0] == 201
    status, refused = await api.patch("/work_pools/pool/queues/good", {"name": name})
    assert (status, "place in the path" in str(refused)) == (422, True)
    assert (await api.patch("/work_pools/pool/queues/good", {"name": "..."}))[0] == 204
    made = await deploy(api)
    sent = {"name": "d", "flow_id": made["flow_id"], "work_pool_name": "pool", "work_queue_name": name}
    status, refused = await api.post("/deployments/", sent)
    assert (status, "place in the path" in str(refused)) == (422, True)
