"""Parts of one run's log, as the web page's log viewer asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.api import log_view
from managedd.model.logs import LogRecord
from managedd.store import log_lookup, logs
from tests.api.test_sockets import a_run, write_lines

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

LINES = 40


@pytest.fixture(autouse=True)
def _short_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lookup, "STRIDE_LINES", 4)
    monkeypatch.setattr(log_lookup, "STRIDES_AT_ONCE", 2)
    monkeypatch.setattr(log_lookup, "FIND_LINES", 7)
    monkeypatch.setattr(log_lookup, "FIND_STEP", 7)


async def part(api: ApiClient, run: str, **query: Any) -> dict[str, Any]:
    asked = {name: str(value) for name, value in query.items()}
    status, answer = await api.get(f"/managed/flow_runs/{run}/logs/page", params=asked)
    assert status == 200, answer
    return dict(answer)


async def a_log(api: ApiClient) -> tuple[str, list[str]]:
    """A run with forty lines of which each seventh is an error, between another's; and their messages."""
    run, other = await a_run(api), await a_run(api)
    records = [
        LogRecord("n", 40 if n % 7 == 0 else 20, f"line {n}", n, each) for n in range(LINES) for each in (run, other)
    ]
    await api.services.logs.write(lambda tx: logs.append(tx, records), workspace=ids.DEFAULT_WORKSPACE_ID)
    return run, [f"line {n}" for n in range(LINES)]


def said(answer: dict[str, Any]) -> list[str]:
    return [each["message"] for each in answer["lines"]]


@pytest.mark.parametrize("level", [None, 40, 50])
async def test_every_part_of_a_log_is_what_is_there(api: ApiClient, level: int | None) -> None:
    run, texts = await a_log(api)
    wanted = {None: texts, 40: texts[::7], 50: []}[level]
    of_level = {} if level is None else {"level": level}
    for start in range(1, len(wanted) + 3):
        for limit in (1, 3, 500):
            answer = await part(api, run, line=start, limit=limit, **of_level)
            end = start - 1 + limit
            assert said(answer) == wanted[start - 1 : end]
            assert answer["total"] == len(wanted)
            assert (answer["more_before"], answer["more_after"]) == (min(start - 1, len(wanted)) > 0, end < len(wanted))
    last = await part(api, run, limit=5, **of_level)
    assert (said(last), last["first_line"]) == (wanted[-5:], max(len(wanted) - 5, 0) + 1)


@pytest.mark.parametrize("level", [20, 40])
async def test_a_part_lies_behind_or_before_any_line(api: ApiClient, level: int) -> None:
    run, texts = await a_log(api)
    cursors = [each["id"] for each in (await part(api, run, line=1, limit=500))["lines"]]
    step = 1 if level == 20 else 7
    for number, cursor in enumerate(cursors):
        behind = [text for at, text in enumerate(texts) if at > number and at % step == 0]
        before = [text for at, text in enumerate(texts) if at < number and at % step == 0]
        assert said(await part(api, run, after=cursor, limit=3, level=level)) == behind[:3]
        found = await part(api, run, before=cursor, limit=3, level=level)
        assert (said(found), found["first_line"]) == (before[-3:], max(len(before) - 3, 0) + 1)


async def test_a_search_walks_on_from_where_it_came_to(api: ApiClient) -> None:
    run, _ = await a_log(api)
    answer = await part(api, run, text="LINE 3", find_level=40, limit=5)
    requests = 1
    while answer["match"] is None:
        answer = await part(api, run, text="LINE 3", find_level=40, limit=5, after=answer["resume"])
        requests += 1
    # 35 is the first error that has the text; the search looks at seven lines in each request.
    assert (said(answer), answer["first_line"], requests) == ([f"line {n}" for n in range(33, 38)], 34, 6)
    assert next(each["message"] for each in answer["lines"] if each["id"] == answer["match"]) == "line 35"
    before = await part(api, run, find_level=40, before=answer["match"], limit=1)
    assert (said(before), before["searched"]) == (["line 28"], 7)
    nothing = await part(api, run, text="line 0", after=answer["match"])
    assert (nothing["match"], nothing["resume"], nothing["lines"], nothing["searched"]) == (None, None, [], 4)


async def test_a_search_within_a_level_counts_the_lines_of_that_level(api: ApiClient) -> None:
    run, _ = await a_log(api)
    first = await part(api, run, text="line 7", level=40, limit=3)
    found = await part(api, run, text="line 7", level=40, limit=3, after=first["resume"])
    assert (said(found), found["first_line"], found["total"]) == (["line 0", "line 7", "line 14"], 1, 6)


async def test_what_is_known_of_a_log_follows_what_comes_and_what_is_removed(api: ApiClient) -> None:
    run = await a_run(api)
    empty = await part(api, run)
    assert (empty["lines"], empty["total"], empty["more_before"], empty["more_after"]) == ([], 0, False, False)
    await write_lines(api, run, *(f"a{n}" for n in range(9)))
    assert (await part(api, run))["total"] == 9
    await write_lines(api, run, "last")
    assert said(await part(api, run, limit=2)) == ["a8", "last"]
    services = api.services
    for _ in range(2):
        await services.logs.write(
            lambda tx: logs.remove_of_run(tx, run, 500, "removed"), workspace=ids.DEFAULT_WORKSPACE_ID
        )
    after = await part(api, run, line=1)
    assert (said(after), after["total"]) == (["removed"], 1)


async def test_only_a_line_of_the_run_is_a_place_in_its_log(api: ApiClient, other: ApiClient) -> None:
    run, theirs = await a_run(api), await a_run(other)
    await write_lines(api, run, "mine")
    (line,) = (await part(api, run))["lines"]
    for client, of_run, cursor in ((api, await a_run(api), line["id"]), (api, run, ids.new_id())):
        for where in ("after", "before"):
            path = f"/managed/flow_runs/{of_run}/logs/page?{where}={cursor}"
            status, answer = await client.get(path)
            assert (status, "no line of this run's log" in str(answer)) == (422, True)
    for client, of_run in ((api, theirs), (other, run)):
        assert (await client.get(f"/managed/flow_runs/{of_run}/logs/page"))[0] == 404


async def test_long_messages_are_cut_and_a_part_is_bounded(api: ApiClient) -> None:
    run = await a_run(api)
    await write_lines(api, run, "x" * 100_000, "short")
    long, short = (await part(api, run))["lines"]
    assert (len(long["message"]), long["chars"], short["chars"]) == (4_000, 100_000, None)
    (whole,) = (await part(api, run, line=1, limit=1, chars=1_000_000))["lines"]
    assert (len(whole["message"]), whole["chars"]) == (100_000, None)
    status, _ = await api.get(f"/managed/flow_runs/{run}/logs/page?limit=500&chars=4001")
    assert status == 422


async def test_surveys_of_so_many_logs_are_kept(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_view, "KEPT", 2)
    run = await a_run(api)
    await write_lines(api, run, "a", "b")
    for level in (0, 10, 20, 30):
        assert (await part(api, run, level=level))["total"] == (2 if level <= 20 else 0)
    assert len(api.services.log_surveys._kept) == 2
