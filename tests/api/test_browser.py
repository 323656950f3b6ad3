"""A web page in somebody's browser can't use a listener that asks for no credential."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener

if TYPE_CHECKING:
    from managedd.api.context import Services
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

VERSION = "/admin/version"
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:4200",
    "localhost.evil.example",
    "10.0.0.7:4200",
    "[2001:db8::1]:80",
    "[",
    "@",
]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:4200", "127.8.9.1", "[::1]:4200", "[::1]"])
async def test_every_name_of_this_host_is_answered(api: ApiClient, host: str) -> None:
    assert (await api.get(VERSION, headers={"Host": host}))[0] == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_name_that_was_pointed_here_is_refused(api: ApiClient, host: str) -> None:
    status, body = await api.get(VERSION, headers={"Host": host})
    assert status == 403
    assert "localhost" in body["detail"]
    assert (await api.post("/flows/filter", {}, headers={"Host": host}))[0] == 403


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-prefix", "X-Real-IP", "Forwarded", "Via", "CF-Connecting-IP"],
)
async def test_what_a_proxy_sends_on_is_refused_while_nobody_is_asked_for_a_key(api: ApiClient, name: str) -> None:
    status, body = await api.get(VERSION, headers={name: "203.0.113.9"})
    assert (status, "server.trusted_proxies" in body["detail"]) == (403, True)


@pytest.mark.parametrize(("version", "status"), [("1.0", 403), ("1.1", 200)])
async def test_what_nginx_speaks_by_itself_is_refused_while_nobody_is_asked_for_a_key(
    api: ApiClient, version: str, status: int
) -> None:
    """As nginx does that was told `proxy_pass` and nothing else: the host has our name, and no header tells of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.http.port)
    host = f"127.0.0.1:{api.http.port}"
    writer.write(f"GET /api{VERSION} HTTP/{version}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.split(" ", 2)[1] == str(status)
    assert ("A proxy has sent this request on (HTTP/1.0)" in answer) is (status == 403)


async def test_a_load_balancer_s_probe_is_answered_though_it_speaks_an_old_http(api: ApiClient) -> None:
    """As HAProxy's `option httpchk GET /api/health` sends it: without a host."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.http.port)
    writer.write(b"GET /api/health HTTP/1.0\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    assert (answer.split(" ", 2)[1], answer.endswith("true")) == ("200", True)


async def test_the_configured_host_is_answered(api: ApiClient, services: Services) -> None:
    server = services.settings.server.model_copy(update={"host": "127.9.9.9"})
    services.settings = services.settings.model_copy(update={"server": server})
    assert (await api.get(VERSION, headers={"Host": "127.9.9.9:4200"}))[0] == 200
    assert (await api.get(VERSION, headers={"Host": "another:4200"}))[0] == 403


def origins(api: ApiClient) -> list[tuple[str, int]]:
    own = f"127.0.0.1:{api.http.port}"
    return [
        (f"http://{own}", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:1", 403),
        (f"http://localhost:{api.http.port}", 403),
        ("null", 403),
        ("", 403),
        (f"chrome-extension://{own}", 403),
    ]


async def test_only_our_own_pages_may_ask(api: ApiClient) -> None:
    for origin, expected in origins(api):
        status, body = await api.get(VERSION, headers={"Origin": origin})
        assert status == expected, origin
        assert (await api.post("/flows/filter", {}, headers={"Origin": origin}))[0] == expected
        assert expected == 200 or "web page" in body["detail"]


async def test_only_our_own_pages_may_open_a_socket(api: ApiClient) -> None:
    for origin, expected in origins(api):
        if expected == 200:
            async with api.http.ws_connect("/api/events/in", headers={"Origin": origin}) as ws:
                assert not ws.closed
        else:
            with pytest.raises(WSServerHandshakeError) as refused:
                await api.http.ws_connect("/api/events/in", headers={"Origin": origin})
            assert refused.value.status == 403


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 403),
        ("text/plain;charset=UTF-8", 403),
        ("application/x-www-form-urlencoded", 403),
        ("multipart/form-data; boundary=x", 403),
        ("text/plain, application/json", 403),
        ("", 403),
    ],
)
async def test_a_body_is_of_a_type_that_browsers_ask_for_first(
    api: ApiClient, content_type: str, expected: int
) -> None:
    for method, path in (("POST", "/flows/filter"), ("POST", "/flows/count")):
        response = await api.http.request(method, api.prefix + path, data=b"{}", headers={"Content-Type": content_type})
        assert response.status == expected
        assert expected == 200 or "application/json" in (await response.json())["detail"]
    response = await api.http.patch(
        f"{api.prefix}/flows/{ids.new_id()}", data=b"{}", headers={"Content-Type": content_type}
    )
    assert response.status == (404 if expected == 200 else 403)


async def test_a_body_without_a_type_is_refused_and_none_at_all_is_not(api: ApiClient) -> None:
    options: dict[str, Any] = {"skip_auto_headers": ["Content-Type"]}
    assert (await api.http.post("/api/flows/filter", data=b"{}", **options)).status == 403
    assert (await api.http.post("/api/flows/filter", **options)).status == 200


async def test_a_listener_with_a_credential_does_not_mind(closed: ApiClient) -> None:
    headers = {"Host": "prefect.example", "Origin": "https://ui.example", "Content-Type": "text/plain"}
    assert (await closed.get(VERSION, headers=headers))[0] == 401
    headers["Authorization"] = "Bearer admin:secret"
    assert (await closed.get(VERSION, headers=headers))[0] == 200
    assert (await closed.http.post("/api/flows/filter", data=b"{}", headers=headers)).status == 200


@pytest.mark.parametrize(("listener", "status"), [(Listener.SOCKET, 200), (Listener.RUNS, 401)])
async def test_the_other_listeners_have_their_own_ways(services: Services, listener: Listener, status: int) -> None:
    application = Api(services, listener).application()
    async with TestClient(TestServer(application)) as http:
        headers = {"Host": "managedd", "Origin": "http://evil.example"}
        assert (await http.get("/api/admin/version", headers=headers)).status == status
