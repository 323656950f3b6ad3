"""Signing in and out, and what a session's cookie is good for: requests of our own pages, nothing else."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api.sessions import COOKIE
from managedd.model.access import Role
from managedd.store import keys as stored_keys
from managedd.store import web_sessions
from managedd.store.workspaces import create
from managedd.ui import making
from tests.support.api_keys import make_key, make_run_key

if TYPE_CHECKING:
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = pytest.mark.anyio

OURS = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
POOL = {"name": "p", "type": "prefect:managed"}


async def sign_in(site: Pages, key: str, **headers: str) -> tuple[int, str, str]:
    """The status, the way to go on, and the cookie's whole header."""
    response = await site.http.post(
        "/sign-in", data={"key": key, "to": "/runs?x=1"}, headers=headers, allow_redirects=False
    )
    return response.status, response.headers.get("Location", ""), response.headers.get("Set-Cookie", "")


async def call(site: Pages, method: str, path: str, headers: dict[str, str] | None = None, json: Any = None) -> int:
    """The status."""
    response = await site.http.request(method, path, json=json, headers=headers, allow_redirects=False)
    return response.status


async def test_whoever_signs_in_has_a_cookie_that_no_script_can_read_and_goes_on(closed_site: Pages) -> None:
    status, way, cookie = await sign_in(closed_site, await make_key(closed_site.services.db, Role.DEVELOPER))
    assert (status, way) == (303, "./runs?x=1")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=43200" in cookie
    # By HTTP; and of the folder that the browser sees, whatever that is.
    assert "Secure" not in cookie
    assert "Path=" not in cookie
    assert await call(closed_site, "POST", "/api/work_pools/", OURS, POOL) == 201
    assert await call(closed_site, "GET", "/work-pools", OURS) == 200


@pytest.mark.parametrize("way", ["//evil.example/", "/\\evil.example", "https://evil.example", "javascript:x", ""])
async def test_nobody_is_sent_elsewhere_after_signing_in(closed_site: Pages, way: str) -> None:
    key = await make_key(closed_site.services.db)
    response = await closed_site.http.post("/sign-in", data={"key": key, "to": way}, allow_redirects=False)
    assert response.headers["Location"] == "./"


async def test_wrong_keys_open_nothing_and_stand_nowhere(closed_site: Pages) -> None:
    db = closed_site.services.db
    run_key = await make_run_key(db, await _flow_run(closed_site))
    for key in ("", "mgd_wrong", run_key, "x" * 3000):
        status, _, cookie = await sign_in(closed_site, key)
        assert (status, cookie) == (401, "")
    response = await closed_site.http.post("/sign-in", data={"key": "<b>secret-thing"})
    assert "secret-thing" not in await response.text()


async def test_another_page_signs_nobody_in_and_uses_no_cookie(closed_site: Pages) -> None:
    key = await make_key(closed_site.services.db)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert (await sign_in(closed_site, key, **headers))[0] == 403
    await sign_in(closed_site, key)
    strangers: list[dict[str, str]] = [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Origin": closed_site.url},
    ]
    for headers in strangers:
        assert await call(closed_site, "POST", "/api/work_pools/", headers, POOL) == 403, headers
        assert await call(closed_site, "POST", "/sign-out", headers) == 403, headers
    assert await call(closed_site, "POST", "/api/work_pools/filter", {"Origin": closed_site.url}, {}) == 200
    assert await call(closed_site, "GET", "/api/work_pools/p", OURS) == 404
    # A link elsewhere may lead here; a script elsewhere sees nothing.
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert await call(closed_site, "GET", "/work-pools", visit) == 200
    assert await call(closed_site, "GET", "/work-pools", {"Sec-Fetch-Site": "cross-site"}) == 403


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
async def test_a_socket_of_another_page_is_not_opened_by_the_cookie(closed_site: Pages, origin: str | None) -> None:
    await sign_in(closed_site, await make_key(closed_site.services.db))
    with pytest.raises(WSServerHandshakeError) as refused:
        await closed_site.http.ws_connect("/api/logs/out", headers={} if origin is None else {"Origin": origin})
    assert refused.value.status == 403


async def test_a_session_ends_with_its_key_its_time_and_by_signing_out_and_so_does_what_it_has_opened(
    closed_site: Pages,
) -> None:
    db = closed_site.services.db

    async def revoke() -> None:
        name = await db.read(lambda tx: stored_keys.every(tx, ids.DEFAULT_WORKSPACE_ID, 1)[0].name)
        await db.write(lambda tx: stored_keys.revoke(tx, ids.DEFAULT_WORKSPACE_ID, name))

    async def sign_out() -> None:
        assert await call(closed_site, "POST", "/sign-out", OURS) == 303

    for end in (revoke, sign_out):
        await sign_in(closed_site, await make_key(db))
        cookie = closed_site.http.session.cookie_jar.filter_cookies(closed_site.http.make_url("/"))[COOKIE].value
        stream = await closed_site.http.get("/work-pools", headers={"Accept": "text/event-stream", **OURS})
        socket = await closed_site.http.ws_connect("/api/logs/out", headers={"Origin": closed_site.url})
        await socket.send_json({"type": "filter", "filter": {}})
        assert b"event: page" in await stream.content.readuntil(b"event: page\n")

        await end()

        with anyio.fail_after(5):
            assert await stream.content.read() is not None
            closing = await socket.receive()
            assert socket.close_code == 1008, closing
        headers = {**OURS, "Cookie": f"{COOKIE}={cookie}"}
        assert await call(closed_site, "GET", "/api/work_pools/p", headers) == 401
        assert await call(closed_site, "GET", "/work-pools", headers) == 303

    await sign_in(closed_site, await make_key(db))
    assert await db.write(lambda tx: web_sessions.forget(tx, before_us=tx.now + 13 * 3_600_000_000, limit=10)) == 2
    assert await call(closed_site, "GET", "/api/work_pools/p", OURS) == 401


async def test_the_auth_string_signs_in_and_another_one_ends_that(closed_site: Pages) -> None:
    assert (await sign_in(closed_site, "admin:secret"))[0] == 303
    assert await call(closed_site, "GET", "/api/managed/status", OURS) == 200
    server = closed_site.services.settings.server
    changed = server.model_copy(update={"auth_string": type(server.auth_string)("admin:other")})  # type: ignore[call-arg, misc]
    closed_site.services.settings = closed_site.services.settings.model_copy(update={"server": changed})
    assert await call(closed_site, "GET", "/api/managed/status", OURS) == 401


async def test_the_holder_of_a_key_is_in_its_own_workspace_and_sees_no_other(closed_site: Pages) -> None:
    db, account, workspace = closed_site.services.db, ids.new_id(), ids.new_id()
    await db.write(
        lambda tx: create(tx, account_id=account, account="acme", workspace_id=workspace, handle="w", plan="pro")
    )
    await sign_in(closed_site, await make_key(db, workspace=workspace))
    own = f"/account/{account}/workspace/{workspace}/work-pools"

    response = await closed_site.http.get("/work-pools", headers=OURS)
    assert response.url.path == own
    text = await response.text()
    assert "acme/w" in text
    assert "default/default" not in text
    other = f"/account/{account}/workspace/{ids.new_id()}/work-pools"
    assert await call(closed_site, "GET", other, OURS) == 404
    assert await call(closed_site, "GET", own + "/", OURS) == 308


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream"])
async def test_a_runs_key_opens_no_page_and_is_told_so(closed_site: Pages, accept: str) -> None:
    run = await _flow_run(closed_site)
    key = await make_run_key(closed_site.services.db, run)
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {b64encode(key.encode()).decode()}"}):
        for path in ("/", "/runs", f"/runs/flow-run/{run}", f"/runs/flow-run/{run}/log", "/settings/keys"):
            response = await closed_site.http.get(
                path, headers={"Accept": accept, **OURS, **headers}, allow_redirects=False
            )
            text = await response.text()
            assert (response.status, response.content_type) == (401, "text/html"), path
            assert "This key opens no page" in text
            assert key not in text


async def test_what_is_another_workspaces_is_not_there_and_its_stream_ends_at_once(closed_site: Pages) -> None:
    db, account, workspace = closed_site.services.db, ids.new_id(), ids.new_id()
    await db.write(
        lambda tx: create(tx, account_id=account, account="acme", workspace_id=workspace, handle="w", plan="pro")
    )
    theirs = await _flow_run(closed_site)
    stream = {"Accept": "text/event-stream", **OURS}
    await sign_in(closed_site, await make_key(db, workspace=workspace))
    own = f"/account/{account}/workspace/{workspace}"
    with anyio.fail_after(20):
        for page in (f"/runs/flow-run/{theirs}", f"/runs/flow-run/{theirs}/log", f"/runs/flow-run/{ids.new_id()}"):
            assert await call(closed_site, "GET", own + page, OURS) == 404, page
            answer = await closed_site.http.get(own + page, headers=stream)
            # As what is not there at all; the browser then asks for the page, and reads why.
            assert (await answer.text()).endswith("event: gone\ndata:\n\n"), page
        elsewhere = f"/account/{account}/workspace/{ids.new_id()}/runs/flow-run/{theirs}"
        for headers in (OURS, stream):
            assert await call(closed_site, "GET", elsewhere, headers) == 404
        at = f"/api/accounts/{account}/workspaces/{workspace}/managed/flow_runs/{theirs}"
        assert await call(closed_site, "GET", f"{at}/logs/page", OURS) == 404
        tail = await closed_site.http.ws_connect(f"{at}/logs/tail", headers={"Origin": closed_site.url})
        await tail.receive()
        assert tail.closed


async def test_a_slash_too_many_loses_nothing_of_the_address(site: Pages) -> None:
    response = await site.http.get("/runs/?state=FAILED&tag=a%26b", allow_redirects=False)
    assert (response.status, response.headers["Location"]) == (308, "../runs?state=FAILED&tag=a%26b")
    response = await site.http.get("/work-pools/work-pool/a%2Fb/", allow_redirects=False)
    assert response.headers["Location"] == "../a%2Fb"


async def test_a_daemon_behind_tls_gives_secure_cookies_and_the_runs_listener_has_no_pages(closed_site: Pages) -> None:
    from managedd.api.app import Api
    from managedd.api.auth import Listener

    runs = Api(closed_site.services, Listener.RUNS).application()
    async with TestClient(TestServer(runs)) as http:
        for path in ("/", "/sign-in", "/work-pools", "/auth/client"):
            assert (await http.get(path)).status in {401, 404}


async def test_every_answer_forbids_strange_scripts_and_frames(site: Pages) -> None:
    for path in ("/work-pools", "/nowhere", "/sign-in", "/work-pools/work-pool/none"):
        response = await site.http.get(path)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        text = await response.text()
        assert "<style" not in text
        assert "style=" not in text
        assert "onclick" not in text


async def test_files_are_kept_for_good_under_their_version_and_pages_are_small(site: Pages) -> None:
    response = await site.http.get("/work-pools")
    text = await response.text()
    names = {part.split('"')[0] for part in text.split('"./static/')[1:]}
    assert {name.split("/")[1] for name in names} >= {"app.css", "app.js"}
    for name in names:
        file = await site.http.get(f"/static/{name}")
        assert file.status == 200
        assert "immutable" in file.headers["Cache-Control"]
    assert (await site.http.get("/static/000000000000/app.js")).status == 404
    assert (await site.http.get("/static/../site.py")).status == 404


@pytest.mark.browser
async def test_a_person_signs_in_works_and_signs_out(closed_site: Pages, looking: Looking) -> None:
    key = await make_key(closed_site.services.db, Role.DEVELOPER, name="Ann's laptop")
    page = looking.page
    looking.expected = ["401"]
    await page.goto(f"{closed_site.url}/work-pools")
    await page.get_by_role("heading", name="Sign in").wait_for()
    assert await looking.barriers() == []
    await page.get_by_label("Key").fill("mgd_nonsense")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("alert").wait_for()
    assert await looking.barriers() == []
    await page.get_by_label("Key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
    await looking.ready()
    assert page.url == f"{closed_site.url}/work-pools"
    assert await page.evaluate("document.cookie") == ""
    assert key not in await page.content()

    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("heading", name="Sign in").wait_for()
    await page.goto(f"{closed_site.url}/work-pools")
    await page.get_by_role("heading", name="Sign in").wait_for()


@pytest.mark.browser
async def test_who_has_too_many_pages_open_reads_why_one_more_is_not_kept_up_to_date(
    closed_site: Pages, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "PAGES_OF_ONE", 1)
    page = looking.page
    await page.goto(f"{closed_site.url}/work-pools")
    await page.get_by_label("Key").fill(await make_key(closed_site.services.db))
    await page.get_by_role("button", name="Sign in").click()
    await looking.ready()
    second = await looking.context.new_page()
    await second.goto(f"{closed_site.url}/runs")
    await second.get_by_role("status").get_by_text("Too many open pages: 1 of the same key").wait_for()
    await second.get_by_role("heading", name="Runs", exact=True).wait_for()
    assert not await page.get_by_text("Too many open pages").is_visible()


@pytest.mark.browser
async def test_a_page_whose_key_is_revoked_shows_nothing_any_more(closed_site: Pages, looking: Looking) -> None:
    db = closed_site.services.db
    page = looking.page
    await page.goto(f"{closed_site.url}/work-pools")
    await page.get_by_label("Key").fill(await make_key(db, name="mine"))
    await page.get_by_role("button", name="Sign in").click()
    await looking.ready()

    await db.write(lambda tx: stored_keys.revoke(tx, ids.DEFAULT_WORKSPACE_ID, "mine"))

    await page.get_by_role("heading", name="Sign in").wait_for()


async def _flow_run(site: Pages) -> str:
    auth = {"Authorization": "Basic YWRtaW46c2VjcmV0"}
    _, flow = await site.api.post("/flows/", {"name": "f"}, headers=auth)
    _, run = await site.api.post("/flow_runs/", {"flow_id": flow["id"]}, headers=auth)
    return str(run["id"])
