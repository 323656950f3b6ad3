"""Walls between workspaces, and between the runs of one: whoever is not meant to sees nothing, changes nothing, and is not even told that there
is something.

Every operation is asked with the ids and names of another workspace, and once more with ids and names that are nowhere: the answers, and the
statements that the store ran for them, are the same.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api import rights
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.surface import all_operations
from managedd.model.access import OfRuns
from managedd.model.logs import LogRecord
from managedd.store import events, log_pages, logs, transaction, workspaces
from managedd.store import keys as stored_keys
from tests.api.wall_cases import Case, cases, task_events
from tests.api.world import NOW, Things, furnish, told
from tests.support.api_keys import bearer, make_key, make_run_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from managedd.api.context import Services
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient
from managedd.wire.filters.logs import LogFilter
from managedd.wire.sorting import LogSort

pytestmark = pytest.mark.anyio

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_KEY = re.compile(r"mgk_[0-9A-Za-z]+")
_FRACTION = re.compile(r"\d+\.\d+(e-?\d+)?")
SILENT_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A workspace, seen by a key of its own."""

    api: ApiClient
    headers: dict[str, str]
    workspace: str
    handle: str
    things: Things


async def _workspace(api: ApiClient, handle: str, mark: str) -> Place:
    account, workspace = ids.new_id(), ids.new_id()
    db = api.services.db
    await db.write(
        lambda tx: workspaces.create(
            tx, account_id=account, account=handle, workspace_id=workspace, handle=handle, plan="pro"
        )
    )
    inside = replace(api, prefix=f"/api/accounts/{account}/workspaces/{workspace}")
    things = await furnish(inside, workspace, mark)
    key = await make_key(db, workspace=workspace, name=f"key-{mark}")
    shown = await db.read(lambda tx: stored_keys.get(tx, workspace, f"key-{mark}"))
    things.ids.update(account=account, workspace=workspace, key=shown.id)
    things.names["key"] = shown.name
    return Place(api=inside, headers=bearer(key), workspace=workspace, handle=handle, things=things)


@pytest.fixture
async def theirs(api: ApiClient) -> Place:
    return await _workspace(api, "account-zero", "ab12ab12")


@pytest.fixture
async def own(api: ApiClient) -> Place:
    return await _workspace(api, "account-one", "1a2b3c4d")


@pytest.fixture
async def twin(api: ApiClient) -> Place:
    """Has what `own` has, so that both can be asked to change something in the same way."""
    return await _workspace(api, "account-two", "1a2b3c4d")


# --- what is compared --------------------------------------------------------------------------------------------------


def _in_state(tx: Tx, workspace: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the workspace, and every row that belongs to one of these."""
    found = {}
    for (table,) in tx.all(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ):
        columns = [row[1] for row in tx.all(f"SELECT * FROM pragma_table_info('{table}')") if row[1] != "indexed"]
        where = {
            "event_related": "position IN (SELECT position FROM events WHERE workspace_id = :workspace)",
            "concurrency_lease_slots": "limit_id IN (SELECT id FROM concurrency_limits WHERE workspace_id = :workspace)",
            "workspaces": "id = :workspace",
            "accounts": "id IN (SELECT account_id FROM workspaces WHERE id = :workspace)",
        }.get(table, "workspace_id = :workspace" if "workspace_id" in columns else None)
        if where is not None:
            listed = ", ".join(f'"{column}"' for column in columns)
            rows = tx.all(f'SELECT {listed} FROM "{table}" WHERE {where}', {"workspace": workspace})
            found[table] = sorted((tuple(row) for row in rows), key=repr)
    return found


def _in_logs(tx: Tx, workspace: str) -> dict[str, list[tuple[Any, ...]]]:
    lines = tx.all("SELECT * FROM log_lines WHERE workspace_id = ? ORDER BY id", (workspace,))
    runs = {row["flow_run_id"] for row in lines}
    sizes = [tuple(row) for row in tx.all("SELECT id, bytes, removed FROM log_runs ORDER BY id") if row[0] in runs]
    return {"logs": [tuple(row) for row in lines], "log_runs": sizes}


async def everything(services: Services, workspace: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that the store has of the workspace."""
    state = await services.db.read(lambda tx: _in_state(tx, workspace))
    return {**state, **await services.logs.read(lambda tx: _in_logs(tx, workspace))}


def _same(text: str, named: Things) -> str:
    """The text without what two answers may differ in: what was asked for, and what is new."""
    kinds = {**{name: kind for kind, name in named.names.items()}, **dict.fromkeys(named.ids.values(), "id")}
    for word in named.words:
        text = text.replace(word, f"<{kinds[word]}>").replace(word.title(), f"<{kinds[word]}>")
    return _FRACTION.sub(
        "<n>", _TIME.sub("<time>", _KEY.sub("<key>", _CHECKSUM.sub("<checksum>", _ID.sub("<id>", text))))
    )


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the store was asked to run, while the block lasts."""
    ran: list[str] = []
    execute = transaction._Frame.execute

    def noted(frame: Any, sql: str, call: Any) -> Any:
        ran.append(sql)
        return execute(frame, sql, call)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transaction._Frame, "execute", noted)
        yield ran


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request led to."""

    status: int
    text: str
    ran: tuple[str, ...]


async def ask(place: Place, case: Case, named: Things) -> Answer:
    """The answer to the request, comparable."""
    body = {"json": case.body} if case.has_body else {}
    # Else the first query after an event would do it.
    await events.settle(place.api.services.db)
    with statements() as ran:
        response = await place.api.http.request(
            case.method, place.api.prefix + case.path, headers=place.headers, **body
        )
        text = (await response.text()).replace(place.handle, "<own>")
    return Answer(status=response.status, text=_same(text, named), ran=tuple(ran))


KEYED = frozenset({"POST /logs/"})
"""Where one statement more is run for what nobody has named yet: the file of log lines keeps a short key for each id, made with its first line."""


# --- other workspaces --------------------------------------------------------------------------------------------------


async def test_nothing_of_another_workspace_is_seen_or_changed(own: Place, twin: Place, theirs: Place) -> None:
    missing = theirs.things.missing()
    before = await everything(own.api.services, theirs.workspace)
    asked = 0
    for operation in all_operations():
        if operation.method == "WS":
            continue
        pairs = zip(cases(operation, own.things, theirs.things), cases(operation, twin.things, missing), strict=True)
        for foreign, absent in pairs:
            found, nothing = await ask(own, foreign, theirs.things), await ask(twin, absent, missing)
            assert found.status < 500, (foreign, found.text)
            assert (found.status, found.text) == (nothing.status, nothing.text), foreign
            if foreign.operation not in KEYED:
                assert found.ran == nothing.ran, foreign
            asked += 1
        after = await everything(own.api.services, theirs.workspace)
        for table, rows in before.items():
            assert after[table] == rows, (operation.id, table)
    assert asked > 700


async def test_every_operation_with_a_path_refuses_what_is_of_another_workspace(own: Place, theirs: Place) -> None:
    """The test above compares; this one says what the answer is."""
    accepted = {
        # A lease that is not known changes nothing, and a resource without automations has none to lose.
        "DELETE /automations/owned-by/{resource_id}", "GET /automations/related-to/{resource_id}",
        "POST /events/count-by/{countable}", "GET /collections/views/{view}", "POST /flow_runs/{id}/input/filter",
    }  # fmt: skip
    for operation in all_operations():
        key = f"{operation.method} {operation.path}"
        if operation.method == "WS" or "{" not in operation.path or key in accepted:
            continue
        named = [
            each
            for each in cases(operation, own.things, theirs.things)
            if own.things.ids["deployment"] not in each.path
        ]
        refused = [(await ask(own, each, theirs.things)).status for each in named[:1]]
        assert set(refused) <= {403, 404, 410}, (key, refused)


async def test_another_workspaces_address_opens_nothing(own: Place, theirs: Place) -> None:
    nowhere = f"/api/accounts/{ids.new_id()}/workspaces/{ids.new_id()}"
    for operation in all_operations():
        if operation.method == "WS" or operation.public:
            continue
        for case in cases(operation, own.things, theirs.things)[:1]:
            there = replace(own, api=replace(own.api, prefix=theirs.api.prefix))
            elsewhere = replace(own, api=replace(own.api, prefix=nowhere))
            found, absent = await ask(there, case, theirs.things), await ask(elsewhere, case, theirs.things)
            assert found.status in {403, 404}, (operation.id, found)
            assert found == absent, operation.id


async def test_names_of_another_workspace_are_free(own: Place, theirs: Place) -> None:
    """Nobody learns what others have by what they may not call their own."""
    names = theirs.things.names
    for path, body, expected in (
        ("/flows/", {"name": names["flow"]}, 201),
        ("/variables/", {"name": names["variable"], "value": 1}, 201),
        ("/work_pools/", {"name": names["work_pool"], "type": "process", "base_job_template": {}}, 201),
        ("/block_types/", {"name": names["slug"].title(), "slug": names["slug"]}, 201),
        ("/v2/concurrency_limits/", {"name": names["limit"], "limit": 1}, 201),
        ("/concurrency_limits/", {"tag": names["tag"], "concurrency_limit": 1}, 201),
        ("/managed/keys", {"name": names["key"], "role": "viewer"}, 201),
    ):
        status, made = await own.api.post(path, body, headers=own.headers)
        assert status == expected, (path, made)


LINES = 5_000
STEPS = 1_000
"""Instructions of the store's machine: some dozens find a few rows by an index."""


async def test_how_long_anothers_log_is_takes_no_time(own: Place, theirs: Place) -> None:
    """Counted in steps, because clocks tell more of the machine: a whole log would be hundreds of thousands."""
    services, run, task = own.api.services, theirs.things.ids["flow_run"], theirs.things.ids["task_run"]
    many = [LogRecord("n", 20, "m", number, run, task) for number in range(LINES)]
    await services.logs.write(lambda tx: logs.append(tx, many), workspace=theirs.workspace)

    def steps(ask: Callable[[Tx], object]) -> Callable[[Tx], int]:
        def counted(tx: Tx) -> int:
            count = 0

            def step() -> int:
                nonlocal count
                count += 1
                return 0

            connection = tx._frame.connection
            connection.set_progress_handler(step, 1)
            try:
                ask(tx)
            finally:
                connection.set_progress_handler(None, 1)
            return count

        return counted

    def asked(flow_run_id: str, task_run_id: str) -> list[Callable[[Tx], object]]:
        of_run = LogFilter.model_validate({"flow_run_id": {"any_": [flow_run_id]}, "timestamp": {"after_": NOW}})
        of_runs = LogFilter.model_validate({"flow_run_id": {"any_": [flow_run_id, ids.new_id()]}})
        of_task = LogFilter.model_validate({"task_run_id": {"any_": [task_run_id]}})
        return [
            *(
                lambda tx, each=each: logs.find(tx, each, LogSort.TIMESTAMP_DESC, 200, 0)
                for each in (of_run, of_runs, of_task)
            ),
            lambda tx: logs.before(tx, of_run),
            lambda tx: logs.lines_after(tx, flow_run_id, (-1, 0), 200),
            lambda tx: log_pages.before_last(tx, flow_run_id, None),
            lambda tx: log_pages.before_time(tx, flow_run_id, 0),
            lambda tx: log_pages.last_until(tx, flow_run_id, LINES),
            lambda tx: log_pages.page_after(tx, flow_run_id, 0),
        ]

    for foreign, missing in zip(asked(run, task), asked(ids.new_id(), ids.new_id()), strict=True):
        for ask in (foreign, missing):
            assert await services.logs.read(steps(ask), workspace=own.workspace) < STEPS
    # Its own workspace does read it.
    assert await services.logs.read(steps(asked(run, task)[4]), workspace=theirs.workspace) > STEPS


async def test_what_is_handed_out_does_not_tell_how_much_others_do(own: Place, theirs: Place) -> None:
    """Ids of lines, of audit entries and the place in pages of events: none can be counted on from, none changes by what others do."""

    async def everybody_does_something(place: Place, times: int) -> None:
        run = place.things.ids["flow_run"]
        line = {"name": "n", "level": 20, "message": "m", "timestamp": NOW, "flow_run_id": run}
        for number in range(times):
            assert (await place.api.post("/logs/", [line], headers=place.headers))[0] == 201
            name = {"name": f"v-{ids.new_id()}", "value": number}
            assert (await place.api.post("/variables/", name, headers=place.headers))[0] == 201
            event = told(ids.new_id(), "e", f"prefect.flow-run.{run}", "w")
            assert (await place.api.post("/events", [event], headers=place.headers))[0] == 204

    async def handed_out() -> dict[str, Any]:
        run = own.things.ids["flow_run"]
        ask = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        lines = (await own.api.post("/logs/filter", ask, headers=own.headers))[1]
        entries = (await own.api.get("/managed/audit", headers=own.headers))[1]["entries"]
        since = {"occurred": {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}}
        page = (await own.api.post("/events/filter", {"filter": since, "limit": 1}, headers=own.headers))[1]
        path = f"{own.api.prefix}/managed/flow_runs/{run}/logs/tail?tail=0"
        async with own.api.http.ws_connect(path, headers=own.headers) as socket:
            start = orjson.loads((await socket.receive_str()).partition("\n")[0])["cursor"]
        made = {"lines": [each["id"] for each in lines], "entries": [each["id"] for each in entries]}
        return {**made, "start": start, "next page": page["next_page"]}

    await everybody_does_something(own, 2)
    before = await handed_out()
    await everybody_does_something(theirs, 5)
    assert await handed_out() == before
    await everybody_does_something(own, 1)
    after = await handed_out()
    assert after["start"] != before["start"]
    for kind, newest in (("lines", -1), ("entries", 0)):
        assert len(after[kind]) == len(before[kind]) + 1
        apart = abs(int(_digits(after[kind][newest]), 16) - int(_digits(before[kind][newest]), 16))
        assert apart > 2**64, kind


def _digits(id_: object) -> str:
    return str(id_).replace("-", "")


# --- sockets -----------------------------------------------------------------------------------------------------------


async def _closing(place: Place, path: str) -> tuple[int, str]:
    """The status of a socket that is refused, or the code and reason with which it is closed."""
    try:
        async with place.api.http.ws_connect(place.api.prefix + path, headers=place.headers) as socket:
            with anyio.fail_after(5):
                message = await socket.receive()
            assert message.type is WSMsgType.CLOSE, message
            return int(message.data), str(message.extra)
    except WSServerHandshakeError as refusal:
        return refusal.status, ""


async def test_sockets_named_after_what_is_of_another_workspace_are_closed_as_if_it_were_nowhere(
    own: Place, theirs: Place
) -> None:
    missing = theirs.things.missing()
    for path in ("/managed/flow_runs/{flow_run}/logs/tail", "/work_pools/{work_pool}/workers/connect"):
        ends = []
        for named in (theirs.things, missing):
            filled = path.format(flow_run=named.ids["flow_run"], work_pool=named.names["work_pool"])
            code, reason = await _closing(own, filled)
            ends.append((code, _same(reason, named)))
        assert ends[0] == ends[1]
        assert ends[0][0] in {404, 1008, 4404}, ends
    for path in ("/events/in", "/events/out", "/logs/out"):
        for prefix in (theirs.api.prefix, f"/api/accounts/{ids.new_id()}/workspaces/{ids.new_id()}"):
            assert (await _closing(replace(own, api=replace(own.api, prefix=prefix)), path))[0] == 404


@pytest.mark.parametrize("path", ["/events/out", "/logs/out"])
async def test_followers_are_sent_nothing_of_another_workspace(own: Place, theirs: Place, path: str) -> None:
    resources = [f"prefect.flow-run.{place.things.ids['flow_run']}" for place in (theirs, own)]
    runs = [place.things.ids["flow_run"] for place in (theirs, own)]
    wide = {"occurred": {"since": NOW, "until": "2100-01-01T00:00:00Z"}}
    filters = {
        "/events/out": {**wide, "any_resource": {"id": resources}},
        "/logs/out": {"flow_run_id": {"any_": runs}, "timestamp": {"after_": "2020-01-01T00:00:00Z"}},
    }
    async with own.api.http.ws_connect(own.api.prefix + path, headers=own.headers) as socket:
        await socket.send_str(orjson.dumps({"type": "filter", "filter": filters[path]}).decode())
        for place, resource in zip((theirs, own), resources, strict=True):
            line = {
                "name": "n",
                "level": 20,
                "message": place.workspace,
                "timestamp": NOW,
                "flow_run_id": place.things.ids["flow_run"],
            }
            assert (await place.api.post("/logs/", [line]))[0] == 201
            assert (await place.api.post("/events", [told(ids.new_id(), "e", resource, place.workspace)]))[0] == 204
        seen = ""
        with anyio.fail_after(5):
            while own.workspace not in seen:
                seen += await socket.receive_str()
        with anyio.move_on_after(SILENT_SECONDS):
            while True:
                seen += await socket.receive_str()
    assert not [word for word in (*theirs.things.words, theirs.workspace) if word in seen]


async def test_events_that_are_sent_change_nothing_of_another_workspace(own: Place, theirs: Place) -> None:
    before = await everything(own.api.services, theirs.workspace)
    async with own.api.http.ws_connect(own.api.prefix + "/events/in", headers=own.headers, autoping=False) as socket:
        for event in task_events(own.things, theirs.things):
            await socket.send_str(orjson.dumps(event).decode())
        await socket.ping(b"p")
        with anyio.fail_after(5):
            assert (await socket.receive()).type is WSMsgType.PONG
    assert await everything(own.api.services, theirs.workspace) == before
    # What was sent under the id of another's state shows nothing of that.
    _, task = await own.api.get(f"/task_runs/{own.things.ids['task_run']}", headers=own.headers)
    assert theirs.things.names["word"] not in str(task)


# --- other runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def of_a_run(own: Place) -> AsyncIterator[tuple[Place, Things]]:
    """The own workspace as one of its runs sees it, and what of it is none of that run's."""
    api = own.api
    status, run = await api.post("/flow_runs/", {"flow_id": own.things.ids["flow"], "state": {"type": "RUNNING"}})
    assert status == 201
    _, task = await api.post("/task_runs/", {"flow_run_id": run["id"], "task_key": "t", "dynamic_key": "0"})
    key = await make_run_key(api.services.db, run["id"], workspace=own.workspace)
    mine = {**own.things.ids, "flow_run": run["id"], "task_run": task["id"]}
    async with TestClient(TestServer(Api(api.services, Listener.RUNS).application())) as http:
        things = replace(own.things, ids=mine)
        yield replace(own, api=replace(api, http=http), headers=bearer(key), things=things), own.things


MADE_IN_PASSING = frozenset({
    "variables", "block_types", "block_schemas", "block_documents", "sealed", "concurrency_limits", "concurrency_leases", "concurrency_lease_slots",
    "changes", "artifact_collections",
})  # fmt: skip
"""What every flow of a workspace may change."""


async def test_a_runs_key_changes_nothing_of_other_runs(of_a_run: tuple[Place, Things]) -> None:
    place, others = of_a_run
    before = await everything(place.api.services, place.workspace)
    refused = 0
    for operation in all_operations():
        if operation.method == "WS":
            continue
        for case in cases(operation, place.things, others):
            answer = await ask(place, case, others)
            assert answer.status < 500, (case, answer.text)
            of_runs = rights.rule_of(operation).runs
            if of_runs is OfRuns.NOTHING:
                assert answer.status == 403, case
            refused += answer.status == 403
        after = await everything(place.api.services, place.workspace)
        for table in before.keys() - MADE_IN_PASSING:
            gone = [row for row in before[table] if row not in after[table] and not _is_own(row, place)]
            assert not gone, (operation.id, table)
    assert refused > 200


def _is_own(row: tuple[Any, ...], place: Place) -> bool:
    return bool({place.things.ids["flow_run"], place.things.ids["task_run"]} & {str(value) for value in row})


async def test_a_run_adds_nothing_to_other_runs(of_a_run: tuple[Place, Things]) -> None:
    place, others = of_a_run
    for path, body in (
        ("/flow_runs/", {"flow_id": others.ids["flow"], "parent_task_run_id": others.ids["task_run"]}),
        (f"/deployments/{others.ids['deployment']}/create_flow_run", {"parent_task_run_id": others.ids["task_run"]}),
        ("/task_runs/", {"flow_run_id": others.ids["flow_run"], "task_key": "x", "dynamic_key": "x"}),
        ("/artifacts/", {"key": "x", "flow_run_id": others.ids["flow_run"]}),
        ("/artifacts/", {"key": "x", "task_run_id": others.ids["task_run"]}),
        (
            "/logs/",
            [{"name": "n", "level": 20, "message": "m", "timestamp": NOW, "flow_run_id": others.ids["flow_run"]}],
        ),
        ("/events", task_events(place.things, others)[:1]),
        ("/events", [told(ids.new_id(), "prefect.flow-run.Completed", f"prefect.flow-run.{others.ids['flow_run']}")]),
    ):
        status, answer = await place.api.post(path, body, headers=place.headers)
        assert status == 403, (path, answer)


async def test_a_runs_key_is_not_told_of_task_runs_of_another_workspace(
    of_a_run: tuple[Place, Things], theirs: Place
) -> None:
    place, _ = of_a_run
    answers = []
    for named in (theirs.things, theirs.things.missing()):
        for path, body in (
            (
                "/flow_runs/",
                {"flow_id": place.things.ids["flow"], "name": "r", "parent_task_run_id": named.ids["task_run"]},
            ),
            ("/artifacts/", {"key": "x", "task_run_id": named.ids["task_run"]}),
            ("/task_runs/", {"flow_run_id": named.ids["flow_run"], "task_key": "x", "dynamic_key": "x"}),
        ):
            status, answer = await place.api.post(path, body, headers=place.headers)
            answers.append((path, status, _same(orjson.dumps(answer).decode(), named)))
    assert answers[:3] == answers[3:]
