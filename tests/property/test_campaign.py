"""Everything that strangers may send at once, to one closed daemon: our fuzzer and schemathesis with keys of every kind, and sockets.

CAMPAIGN_REQUESTS says how many requests our fuzzer makes (a few hundred unless it is set), CAMPAIGN_EXAMPLES how many of each operation
schemathesis tries with each key (none unless it is set), CAMPAIGN_SEED which they are. What was sent is counted by the daemon.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from yarl import URL

from managedd import ids
from managedd.model import keys
from tests.support import stranger
from tests.support.api_keys import bearer
from tests.support.fuzzer import Fuzzer
from tests.support.http import Api
from tests.support.provision import in_ci
from tests.support.steps import CannotProvisionError
from tests.support.weighed import WeighedDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REQUESTS = int(os.environ.get("CAMPAIGN_REQUESTS", "1200"))
EXAMPLES = int(os.environ.get("CAMPAIGN_EXAMPLES", "0"))
SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
IS_LONG = REQUESTS > 10_000 or EXAMPLES > 0
AT_ONCE = 2
"""Of each kind of key."""
PARTS = 6
SOCKETS = (
    "/events/in",
    "/events/out",
    "/logs/out",
    "/managed/flow_runs/00000000-0000-4000-8000-000000000001/logs/tail",
)
AUTH_STRING = "admin:of-everything"
FAULTS = {"request.failed", "socket.failed", "loop.failed", "settings.refused"}
GROWTH = 1.25
"""Of what is in use of the heap, and of what is resident, from the third part of the long form to its end."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[WeighedDaemon]:
    """Runs have a listener, and none is started."""
    made = WeighedDaemon(
        tmp_path / "daemon",
        settings={
            "server": {"auth_string": AUTH_STRING},
            "runs": {"driver": "process", "listen_port": 0},
            "process": {"trusted": True},
            "plans.pro": {"concurrent_runs": 0},
            "log": {"level": "info"},
        },
    )
    made.start()
    try:
        yield made
    finally:
        made.close()


@dataclass(kw_only=True)
class Somebody:
    """One kind of credential, and where it is shown."""

    kind: str
    daemon: WeighedDaemon
    answered: Counter[int] = field(default_factory=Counter)
    _key: str | None = None

    @property
    def url(self) -> str:
        """Where the API is for it."""
        if self.kind != "run":
            return self.daemon.url
        return str(self._overseer.get("/managed/status")["engine"]["runs_api_url"])

    @property
    def _overseer(self) -> Api:
        return Api(self.daemon.url, headers=bearer(AUTH_STRING))

    def key(self) -> str:
        """The key that it has now."""
        if self._key is None:
            self._key = self._new()
        return self._key

    def renew(self) -> None:
        """Somebody has revoked its key, or deleted its run: it gets another."""
        self._key = None

    def _new(self) -> str:
        match self.kind:
            case "stranger":
                return keys.make()
            case "run":
                return self._run_key()
        made = self._overseer.post("/managed/keys", {"name": f"{self.kind} {ids.new_id()}", "role": self.kind})
        return str(made["key"])

    def _run_key(self) -> str:
        """Of an execution that nobody looks after: written beside the daemon, as no operation makes one."""
        flow = self._overseer.post("/flows/", {"name": "f"})["id"]
        run = self._overseer.post("/flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING", "name": "Running"}})[
            "id"
        ]
        key = f"{keys.RUN_PREFIX}{ids.new_id()}"
        with closing(sqlite3.connect(self.daemon.data_dir / "state.db", timeout=30)) as store, store:
            store.execute(
                "INSERT INTO executions (id, workspace_id, flow_run_id, attempt, phase, driver, claimed_at, key_hash) "
                "VALUES (?, ?, ?, 1, 'RUNNING', 'process', 0, ?)",
                (ids.new_id(), ids.DEFAULT_WORKSPACE_ID, run, keys.hashed(key)),
            )
        return key


KINDS = ("admin", "developer", "runner", "viewer", "run", "stranger")


class Campaign:
    """What is sent, and what came of it."""

    def __init__(
        self, daemon: WeighedDaemon, sessions: Mapping[str, aiohttp.ClientSession], document: dict[str, Any]
    ) -> None:
        self.daemon = daemon
        self._sessions = sessions
        self.people = [Somebody(kind=kind, daemon=daemon) for kind in KINDS]
        self.fuzzer = Fuzzer(document, SEED)
        self.wrong: list[str] = []
        self.messages = 0

    async def requests(self, count: int) -> None:
        """Our fuzzer has made about so many, with every kind of credential at the same time."""
        each = -(-count // len(self.people) // AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for somebody in self.people:
                for _ in range(AT_ONCE):
                    tasks.start_soon(self._ask, somebody, each)

    async def _ask(self, somebody: Somebody, count: int) -> None:
        url = await anyio.to_thread.run_sync(lambda: somebody.url)
        for _ in range(count):
            key = await anyio.to_thread.run_sync(somebody.key)
            attempt = self.fuzzer.attempt()
            shown = bearer(key) | attempt.headers
            body = None if attempt.body is None else io.BytesIO(attempt.body)
            async with self._sessions[somebody.kind].request(
                attempt.method, URL(url + attempt.path, encoded=True), data=body, headers=shown
            ) as response:
                text = await response.read()
            somebody.answered[response.status] += 1
            if response.status == 401 and "Authorization" not in attempt.headers:
                somebody.renew()
            if response.status >= 500 and (response.status != 503 or "Retry-After" not in response.headers):
                self.wrong.append(f"{response.status} {somebody.kind} {attempt} {text[:300]!r}")
            elif response.status < 300 and text.startswith((b"{", b"[")):
                self.fuzzer.learn(json.loads(text))

    async def sockets(self, count: int) -> None:
        """So many were opened with every kind of credential, told ten messages each, and left or cut."""
        async with anyio.create_task_group() as tasks:
            for somebody in self.people:
                tasks.start_soon(self._tell, somebody, -(-count // len(self.people)))

    async def _tell(self, somebody: Somebody, count: int) -> None:
        url = await anyio.to_thread.run_sync(lambda: somebody.url)
        for turn in range(count):
            key = await anyio.to_thread.run_sync(somebody.key)
            # The runs' listener asks for the key before the handshake, as clients of our own do.
            headers = bearer(key) if turn % 2 or somebody.kind == "run" else {}
            try:
                async with self._sessions[somebody.kind].ws_connect(
                    url + SOCKETS[turn % len(SOCKETS)],
                    protocols=("prefect",),
                    headers=headers,
                    timeout=aiohttp.ClientWSTimeout(ws_close=5),
                ) as ws:
                    await ws.send_json({"type": "auth", "token": key})
                    for _ in range(10):
                        message = self.fuzzer.message()
                        await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
                        self.messages += 1
                    if turn % 7 == 0 and ws._response.connection is not None:
                        ws._response.connection.transport.abort()  # type: ignore[union-attr]
            except (aiohttp.ClientError, ConnectionError) as error:
                if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 401:
                    somebody.renew()

    async def stranger(self, folder: Path) -> int:
        """schemathesis has tried every operation with every kind of key; how many cases it says it had."""
        cases = 0
        # Whoever has none is not shown the document either.
        for number, somebody in enumerate(each for each in self.people if each.kind != "stranger"):
            somebody.renew()
            headers = bearer(await anyio.to_thread.run_sync(somebody.key))
            url = await anyio.to_thread.run_sync(lambda somebody=somebody: somebody.url)  # type: ignore[misc]
            told = await anyio.to_thread.run_sync(
                partial(
                    stranger.run, url, headers, folder=folder, examples=EXAMPLES, seed=SEED + number, workers=4, timeout=3 * 3600
                )
            )  # fmt: skip
            print(f"schemathesis as {somebody.kind}: {told.cases} cases")
            cases += told.cases
            if not told.is_fine:
                self.wrong.append(f"schemathesis as {somebody.kind}: {told.text}")
        return cases

    def faults(self) -> list[Any]:
        """What the daemon's log says of faults."""
        found: list[Any] = []
        for line in self.daemon.log_path.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                found.append(line)
                continue
            # The executions that were written for the runs' keys have no process: within a minute the daemon finds that out, and ends them.
            if entry.get("event") != "execution.failed" and (entry.get("event") in FAULTS or "exception" in entry):
                found.append(entry)
        return found


async def _document(session: aiohttp.ClientSession, daemon: WeighedDaemon) -> dict[str, Any]:
    async with session.get(f"{daemon.url}/openapi.json", headers=bearer(AUTH_STRING)) as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def _schemathesis_is_there() -> None:
    try:
        await anyio.to_thread.run_sync(stranger.ensure_schemathesis)
    except CannotProvisionError as error:
        if in_ci():
            raise
        pytest.skip(str(error))


def _session(address: str) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))


@pytest.mark.timeout(6 * 3600 if IS_LONG else 180)
async def test_nothing_that_strangers_send_is_a_fault_of_ours(daemon: WeighedDaemon, tmp_path: Path) -> None:
    if EXAMPLES:
        await _schemathesis_is_there()
    weights = []
    # Whoever guesses has an address of their own, for which others who come with a new key do not wait.
    async with _session("127.0.0.1") as session, _session("127.0.0.2") as guessing:
        document = await _document(session, daemon)
        sessions = {kind: guessing if kind == "stranger" else session for kind in KINDS}
        campaign = Campaign(daemon, sessions, document)
        for number in range(PARTS):
            if EXAMPLES and number == PARTS // 2:
                print(f"schemathesis: {await campaign.stranger(tmp_path / 'schemathesis')} cases")
            await campaign.requests(REQUESTS // PARTS)
            await campaign.sockets(REQUESTS // PARTS // 20)
            weights.append(await anyio.to_thread.run_sync(partial(daemon.weight, settled=False)))
            print(weights[-1], flush=True)
    for somebody in campaign.people:
        print(f"{somebody.kind}: {sum(somebody.answered.values())} requests of the fuzzer: {dict(somebody.answered)}")
    print(
        f"{len(campaign.fuzzer.seen)} of {campaign.fuzzer.operations} operations; {campaign.messages} messages of sockets"
    )
    assert not campaign.wrong, "\n".join(campaign.wrong[:10])
    assert not campaign.faults()
    if IS_LONG:
        assert weights[-1].used_bytes <= weights[2].used_bytes * GROWTH
        assert weights[-1].resident_bytes <= weights[2].resident_bytes * GROWTH
    for somebody in campaign.people:
        if somebody.kind == "stranger":
            assert somebody.answered[401] > 0
            assert somebody.answered[201] == somebody.answered[422] == 0
        else:
            assert somebody.answered[200] > 0, somebody.kind
            assert somebody.answered[422] > 0, somebody.kind


@pytest.mark.timeout(400)
async def test_what_schemathesis_makes_of_each_operation_is_no_fault_of_ours(
    daemon: WeighedDaemon, tmp_path: Path
) -> None:
    """A little of it; the test above with CAMPAIGN_EXAMPLES is much."""
    await _schemathesis_is_there()
    admin = Somebody(kind="admin", daemon=daemon)

    def run() -> stranger.Told:
        return stranger.run(
            daemon.url,
            bearer(admin.key()),
            folder=tmp_path / "schemathesis",
            examples=1,
            seed=SEED,
            workers=2,
            timeout=300,
        )

    told = await anyio.to_thread.run_sync(run)
    assert told.is_fine, told.text
    async with _session("127.0.0.1") as session:
        campaign = Campaign(daemon, {}, await _document(session, daemon))
    assert told.cases >= campaign.fuzzer.operations * 0.9, told.text
    assert (await anyio.to_thread.run_sync(daemon.weight)).requests >= told.cases
    assert not campaign.faults()
