"""`status` and `logs` against a daemon's own socket, as processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from anyio.streams.text import TextReceiveStream

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.sockets import Sockets
from managedd.cli.logs import _newest_first
from managedd.listeners import Door
from managedd.model.executions import EndCause, Phase
from managedd.model.logs import LogRecord
from managedd.store import executions, logs
from tests.api.deployed import deploy, pool_of, run_it

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

    from managedd.api.context import Services
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio
START_US = 1_700_000_000_000_000


def socket_of(services: Services) -> Path:
    return services.settings.store.data_dir / "managedd.sock"


async def opened(services: Services) -> Door:
    door = Door(Api(services, Listener.SOCKET).application(), services.settings.server)
    await door.open()
    await door.listen_unix(socket_of(services))
    return door


@pytest.fixture
async def door(services: Services) -> AsyncIterator[Door]:
    made = await opened(services)
    yield made
    await made.close()


def command(services: Services, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "managedd", *arguments, "--data-dir", str(services.settings.store.data_dir)]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MANAGEDD_")}
    return {**kept, "TZ": "UTC", "PYTHONWARNINGS": "error"}


async def managedd(services: Services, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process(command(services, *arguments), env=environment(), check=False)


async def printed(services: Services, *arguments: str) -> str:
    done = await managedd(services, *arguments)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode()


async def run_of(api: ApiClient, name: str = "lively-lynx") -> dict[str, Any]:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1})
    return await run_it(api, deployment, name=name)


async def write(
    services: Services, run: dict[str, Any], first: int, count: int, text: str = "line {}", at: int | None = None
) -> None:
    lines = [
        LogRecord(
            name="prefect.flow_runs",
            level=20,
            message=text.format(number),
            timestamp_us=START_US + (number if at is None else at) * 1000,
            flow_run_id=run["id"],
            task_run_id=None,
        )
        for number in range(first, first + count)
    ]
    await services.logs.write(lambda tx: logs.append(tx, lines), workspace=ids.DEFAULT_WORKSPACE_ID)


async def end(services: Services, api: ApiClient, run: dict[str, Any]) -> None:
    """The run is Completed, and so is its execution."""

    def execute(tx: Tx) -> None:
        made = executions.insert(tx, flow_run_id=run["id"], work_pool_id=None, driver="fake")
        executions.advance(tx, made.id, (Phase.CLAIMED,), Phase.EXITED)
        executions.advance(tx, made.id, (Phase.EXITED,), Phase.FINALIZED)

    await services.db.write(execute, workspace=ids.DEFAULT_WORKSPACE_ID)
    state = {"type": "COMPLETED", "message": "All good"}
    await api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


@pytest.mark.usefixtures("door")
async def test_the_socket_is_for_its_owner_alone(services: Services) -> None:
    assert stat.S_IMODE(socket_of(services).stat().st_mode) == 0o600


@pytest.mark.usefixtures("door")
async def test_status_shows_pools_queue_heads_and_what_runs(services: Services, api: ApiClient) -> None:
    shown = await printed(services, "status")
    assert "No work pools." in shown
    assert "Nothing is running." in shown
    run = await run_of(api)
    await api.patch("/work_pools/mine", {"is_paused": True})
    shown = await printed(services, "status")
    assert "\x1b" not in shown
    assert "lively-lynx (Scheduled): work pool 'mine' is paused" in shown
    made = await services.db.write(
        lambda tx: executions.insert(tx, flow_run_id=run["id"], work_pool_id=None, driver="fake"),
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )
    await api.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "PENDING"}})
    await services.db.write(lambda tx: executions.note(tx, made.id, {"memory_limit_bytes": 2 * 1024**3}))
    services.facts["readings"] = lambda: {made.id: {"memory_bytes": 300 * 1024**2, "peak_memory_bytes": None}}
    line = next(line for line in (await printed(services, "status")).splitlines() if run["id"] in line)
    assert all(part in line for part in ("lively-lynx", "CLAIMED", "Pending", "300 MiB of 2.0 GiB"))


@pytest.mark.usefixtures("door")
async def test_status_shows_what_a_limit_has_ended(services: Services, api: ApiClient) -> None:
    assert "Ended by a limit" not in await printed(services, "status")
    run = await run_of(api)
    message = "Disk limit reached: the run has written 65.0 MiB of files; its limit is 64.0 MiB."

    def ended(tx: Tx, cause: EndCause, hours: int) -> None:
        made = executions.insert(tx, flow_run_id=run["id"], work_pool_id=None, driver="fake")
        facts = {"cause": cause.value, "execution_id": made.id, "limit": 64, "reached": 65.5, "unit": "bytes"}
        changes = {
            "end_cause": cause,
            "end_message": message,
            "exited_at": tx.now - hours * 3_600_000_000,
            "evidence": {"end": facts},
        }
        executions.advance(tx, made.id, (Phase.CLAIMED,), Phase.EXITED, changes)
        executions.advance(tx, made.id, (Phase.EXITED,), Phase.FINALIZED)

    for cause, hours in ((EndCause.DISK, 1), (EndCause.ENGINE_EXIT, 2), (EndCause.TIME, 25)):
        await services.db.write(partial(ended, cause=cause, hours=hours), workspace=ids.DEFAULT_WORKSPACE_ID)
    [found] = json.loads(await printed(services, "status", "--json"))["limited"]
    assert (found["flow_run_id"], found["end_cause"], found["limit"], found["reached"], found["unit"]) == (
        run["id"], "disk", 64, 65.5, "bytes",
    )  # fmt: skip
    shown = await printed(services, "status")
    line = next(line for line in shown.splitlines() if message in line)
    assert all(part in line for part in (run["id"], "disk", "1 h", "ago"))


@pytest.mark.usefixtures("door")
async def test_status_as_json_is_the_api_s_answer(services: Services, api: ApiClient) -> None:
    run = await run_of(api)
    shown = json.loads(await printed(services, "status", "--json"))
    assert shown["pools"][0]["queues"][0]["head"]["id"] == run["id"]


@pytest.mark.usefixtures("door")
async def test_logs_come_whole_and_in_order_over_pages(services: Services, api: ApiClient) -> None:
    run = await run_of(api)
    await write(services, run, 0, 450)
    lines = (await printed(services, "logs", "lively-lynx")).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [str(number) for number in range(450)]
    assert lines[0] == "2023-11-14 22:13:20.000 INFO     prefect.flow_runs | line 0"
    last = (await printed(services, "logs", run["id"], "-n", "3")).splitlines()
    assert last == lines[-3:]
    assert await printed(services, "logs", run["id"], "-n", "0") == ""
    as_json = (await printed(services, "logs", run["id"][:20], "-n", "201", "--json")).splitlines()
    assert [json.loads(line)["message"] for line in as_json] == [f"line {number}" for number in range(249, 450)]


@pytest.mark.usefixtures("door")
async def test_logs_of_one_moment_come_once_each_over_pages(services: Services, api: ApiClient) -> None:
    """A burst of lines may share one time, more of them than a page holds."""
    run = await run_of(api)
    await write(services, run, 0, 150)
    await write(services, run, 150, 450, at=150)
    await write(services, run, 600, 250)
    numbers = [str(number) for number in range(850)]
    shown = (await printed(services, "logs", run["id"])).splitlines()
    assert [line.rpartition(" ")[2] for line in shown] == numbers
    last = (await printed(services, "logs", run["id"], "-n", "710")).splitlines()
    assert [line.rpartition(" ")[2] for line in last] == numbers[-710:]


async def test_a_page_begins_at_the_last_line_before_it_and_not_at_a_count() -> None:
    """What the thousandth page costs is what the first one does; lines that come meanwhile move nothing."""
    stored = [{"id": str(number), "timestamp": f"2026-01-01T00:00:{number // 100:02}Z"} for number in range(1000)]
    asked: list[int] = []

    class Answers:
        async def post(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
            before = body["logs"].get("timestamp", {}).get("before_", "9")
            asked.append(body["offset"])
            found = [line for line in stored if line["timestamp"] <= before]
            page = found[::-1][body["offset"] :][: body["limit"]]
            stored.append({"id": str(len(stored)), "timestamp": "2026-01-01T00:01:00Z"})
            return page

    before = len(stored)
    lines = [line["id"] async for line in _newest_first(Answers(), "/x", {"flow_run_id": {"any_": ["x"]}})]  # type: ignore[arg-type]
    assert len(set(lines)) == len(lines) >= before
    assert sorted(lines, key=int, reverse=True) == lines
    assert max(asked) <= 200


@pytest.mark.usefixtures("door")
async def test_logs_of_a_run_that_is_not_there_or_not_one(services: Services, api: ApiClient) -> None:
    done = await managedd(services, "logs", "nobody")
    assert (done.returncode, done.stderr) == (1, b"managedd: no flow run has the id or name 'nobody'\n")
    first = await run_of(api, "twin")
    second = await run_it(api, {"id": first["deployment_id"]}, name="twin")
    done = await managedd(services, "logs", "twin")
    assert done.returncode == 1
    assert first["id"] in done.stderr.decode()
    assert second["id"] in done.stderr.decode()


async def test_following_survives_a_restart_and_ends_with_the_run(services: Services, api: ApiClient) -> None:
    door = await opened(services)
    run = await run_of(api)
    await write(services, run, 0, 3)
    with anyio.fail_after(90):
        async with await anyio.open_process(
            command(services, "logs", run["id"], "-f", "-n", "2"), env=environment()
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            out, err = TextReceiveStream(process.stdout), TextReceiveStream(process.stderr)
            shown = ""
            while "line 2" not in shown:
                shown += await out.receive()
            await services.sockets.close_all()
            await door.close()
            services.sockets = Sockets()
            await write(services, run, 3, 1)
            complaint = ""
            while "trying again" not in complaint:
                complaint += await err.receive()
            door = await opened(services)
            await write(services, run, 4, 1)
            while "line 4" not in shown:
                shown += await out.receive()
            await end(services, api, run)
            async for text in err:
                complaint += text
            assert await process.wait() == 0
    await door.close()
    assert [line.rpartition(" ")[2] for line in shown.splitlines()] == ["1", "2", "3", "4"]
    assert "the run has ended as Completed: All good" in complaint


async def test_following_survives_a_connection_that_ends_with_an_error(services: Services) -> None:
    """As with a daemon that answers no heartbeat, or a frame that no websocket has."""
    asked: list[dict[str, str]] = []
    here = ids.new_id()
    run = {"id": ids.new_id(), "account_id": ids.DEFAULT_ACCOUNT_ID, "workspace_id": ids.DEFAULT_WORKSPACE_ID}

    async def runs(_: web.Request) -> web.Response:
        return web.json_response([run])

    async def tail(request: web.Request) -> web.WebSocketResponse:
        asked.append(dict(request.query))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if len(asked) == 1:
            await socket.send_json({"type": "start", "cursor": here})
            assert request.transport is not None
            request.transport.write(b"\xff\x00")
        else:
            await socket.send_json({"type": "state", "cursor": here, "state": {"name": "Completed", "message": None}})
        await socket.receive()
        return socket

    app = web.Application()
    base = f"/api/accounts/{run['account_id']}/workspaces/{run['workspace_id']}"
    app.router.add_get("/api/managed/flow_runs", runs)
    app.router.add_get(f"{base}/managed/flow_runs/{run['id']}/logs/tail", tail)
    runner = web.AppRunner(app)
    await runner.setup()
    socket_of(services).parent.mkdir(parents=True, exist_ok=True)
    await web.UnixSite(runner, str(socket_of(services))).start()
    done = await managedd(services, "logs", run["id"], "-f")
    await runner.cleanup()
    assert done.returncode == 0, done
    assert asked == [{}, {"after": here}]
    assert b"trying again" in done.stderr
    assert b"the run has ended as Completed" in done.stderr


@pytest.mark.usefixtures("door")
async def test_an_interrupted_follower_ends_quietly(services: Services, api: ApiClient) -> None:
    run = await run_of(api)
    await write(services, run, 0, 1)
    with anyio.fail_after(60):
        async with await anyio.open_process(command(services, "logs", run["id"], "-f"), env=environment()) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            await TextReceiveStream(process.stdout).receive()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            with pytest.raises(anyio.EndOfStream):
                await process.stderr.receive()


@pytest.mark.usefixtures("door")
async def test_a_daemon_that_starts_says_so(services: Services) -> None:
    services.ready = False
    done = await managedd(services, "status")
    assert (done.returncode, done.stderr) == (3, b"managedd: managedd is starting: try again in a moment\n")


@pytest.mark.usefixtures("door")
async def test_only_the_lines_that_were_asked_for_are_shown(services: Services, api: ApiClient) -> None:
    """The last N are the last N of those, and following goes on behind them."""
    run = await run_of(api)
    for first in range(0, 1000, 100):
        await write(services, run, first, 99)
        await write(services, run, first + 99, 1, text="failed {}")
    # Stored last, and dated earlier than others.
    await write(services, run, 850, 1, text="failed {}")
    asked = ("logs", run["id"], "--grep", "^failed", "--since", "2023-11-14T22:13:20.500Z")
    shown = [line.rpartition(" ")[2] for line in (await printed(services, *asked)).splitlines()]
    assert shown == ["599", "699", "799", "899", "999", "850"]
    with anyio.fail_after(60):
        async with await anyio.open_process(
            command(services, *asked, "-f", "-n", "3", "--json"), env=environment()
        ) as process:
            assert process.stdout is not None
            out = TextReceiveStream(process.stdout)
            text = ""
            while text.count("\n") < 3:
                text += await out.receive()
            await write(services, run, 1000, 50)
            await write(services, run, 1050, 1, text="failed {}")
            await end(services, api, run)
            async for more in out:
                text += more
            assert await process.wait() == 0
    assert [json.loads(line)["message"] for line in text.splitlines()] == [
        f"failed {number}" for number in (850, 899, 999, 1050)
    ]


@pytest.mark.usefixtures("door")
async def test_the_usage_of_all_workspaces_is_one_table(services: Services, api: ApiClient) -> None:
    assert (await api.post("/managed/workspaces", {"account": "acme", "handle": "idle", "plan": "free"}))[0] == 201
    shown = await printed(services, "usage", "--by", "workspace")
    assert [line.split()[:2] for line in shown.splitlines() if "/" in line] == [
        ["acme/idle", "free"],
        ["default/default", "pro"],
    ]
    told = json.loads(await printed(services, "usage", "--by", "workspace", "--workspace", "idle", "--json"))
    assert [each["handle"] for each in told["workspaces"]] == ["idle"]
    done = await managedd(services, "usage", "--by", "workspace", "--month", "9998-11")
    assert (done.returncode, b"has not begun" in done.stderr) == (2, True)


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize(
    ("month", "words"),
    [("2026-13", "--month: '2026-13' is no month; allowed: YYYY-MM"), ("9998-11", "--month: 9998-11 has not begun")],
)
async def test_the_usage_of_no_month_is_wrong_usage(services: Services, month: str, words: str) -> None:
    done = await managedd(services, "usage", "--month", month)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
