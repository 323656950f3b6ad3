"""Whom a proxy's headers are believed, and what of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import SecretStr, ValidationError

from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.forwarded import MAX_HOPS, Hop, Proxies
from managedd.config import ServerSection
from tests.api.conftest import ApiClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.api.context import Services

pytestmark = pytest.mark.anyio

PROXY = "10.0.0.1"
INNER = "10.0.0.2"
CLIENT = "192.0.2.7"
AUTH = "admin:secret"
FOR, PROTO, HOST, STANDARD = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"


def origin(
    *headers: tuple[str, str], remote: str | None = PROXY, trusted: tuple[str, ...] = ("10.0.0.0/8",)
) -> Hop | None:
    return Proxies(trusted).origin(remote, CIMultiDictProxy(CIMultiDict(headers)))


def address(*headers: tuple[str, str], remote: str | None = PROXY) -> str | None:
    found = origin(*headers, remote=remote)
    return None if found is None else found.address


@pytest.mark.parametrize("remote", [CLIENT, "11.0.0.1", "2001:db8::1", "", None, "no address"])
def test_who_is_no_trusted_proxy_is_not_believed(remote: str | None) -> None:
    assert origin((FOR, "203.0.113.9"), (PROTO, "https"), (STANDARD, "for=203.0.113.9"), remote=remote) is None


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert origin((FOR, CLIENT), trusted=()) is None


def test_a_proxy_tells_the_client_the_scheme_and_the_host() -> None:
    told = ((FOR, CLIENT), (PROTO, "https"), (HOST, "Prefect.Example:8443"))
    assert origin(*told) == Hop(address=CLIENT, scheme="https", host="prefect.example:8443")
    assert origin((STANDARD, f'for={CLIENT};proto=https;host="prefect.example:8443";by=_x')) == origin(*told)


@pytest.mark.parametrize(
    ("list_", "expected"),
    [
        (CLIENT, CLIENT),
        (f"203.0.113.66, {CLIENT}", CLIENT),
        (f"203.0.113.66,{CLIENT}, {INNER}", CLIENT),
        (f"{INNER}, {CLIENT}, {INNER}", CLIENT),
        (f"{INNER}", INNER),
        (f"{CLIENT}, unknown", None),
        (f"{CLIENT}, unknown, {INNER}", INNER),
        (f"{CLIENT}:4711", CLIENT),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        (",,,", None),
        ("x" * 4000, None),
        ("999.1.1.1", None),
        ("127.1", None),
        ("[2001:db8::1]junk", None),
        ("<script>", None),
    ],
)
def test_the_right_most_that_is_no_trusted_proxy_is_the_client(list_: str, expected: str | None) -> None:
    assert address((FOR, list_)) == expected


def test_several_lines_are_one_list() -> None:
    assert address((FOR, "203.0.113.66"), (FOR, CLIENT), (FOR, INNER)) == CLIENT


def test_a_list_without_end_is_read_from_its_end() -> None:
    endless = ",".join([CLIENT] + [INNER] * (MAX_HOPS * 4))
    assert address((FOR, endless)) == INNER


def test_what_the_client_wrote_before_the_proxy_is_not_believed() -> None:
    """Neither its scheme nor its host: they belong to the hops that it made up."""
    found = origin((FOR, f"203.0.113.66, {CLIENT}"), (PROTO, "https, http"), (HOST, "evil.example, own.example"))
    assert found == Hop(address=CLIENT, scheme="http", host="own.example")


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("https", "https"), ("WSS", "https"), ("ws", "http"), ("javascript", None), ("", None), ("https,http,http", None)],
)
def test_a_scheme_is_http_or_https(scheme: str, expected: str | None) -> None:
    assert origin((FOR, CLIENT), (PROTO, scheme)) == Hop(address=CLIENT, scheme=expected)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("prefect.example", "prefect.example"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("user@prefect.example", None),
        ("prefect.example/path", None),
        ("pre fect", None),
        ("ｐrefect", None),
        ("x" * 300, None),
        ("prefect.example:port", None),
    ],
)
def test_a_host_is_a_name_and_a_port(host: str, expected: str | None) -> None:
    assert origin((FOR, CLIENT), (HOST, host)) == Hop(address=CLIENT, host=expected)


@pytest.mark.parametrize(
    "text",
    [
        'for="unclosed',
        "for",
        "=",
        "for=;proto=https",
        f"for={CLIENT};;",
        "for=_hidden",
        "for=unknown",
        'for="[2001:db8::1]:x"',
        "\\",
    ],
)
def test_a_malformed_forwarded_is_ignored(text: str) -> None:
    assert origin((STANDARD, text)) is None


def test_two_kinds_that_disagree_are_both_ignored() -> None:
    """A proxy that writes the one passes the other on as the client sent it."""
    assert origin((FOR, CLIENT), (STANDARD, "for=203.0.113.66")) is None
    assert origin((FOR, "203.0.113.66"), (STANDARD, f"for={CLIENT}")) is None
    assert address((FOR, CLIENT), (STANDARD, f'for="{CLIENT}:80"')) == CLIENT


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "10.0.0.1/8", "proxy.example", ""])
def test_a_proxy_is_an_address_or_a_network(network: str) -> None:
    with pytest.raises(ValidationError):
        ServerSection(trusted_proxies=[network])


# --- through the application -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    services: Services, *, listener: Listener = Listener.CLIENTS, **settings: object
) -> AsyncIterator[ApiClient]:
    server = services.settings.server.model_copy(update={"auth_string": SecretStr(AUTH), **settings})
    services.settings = services.settings.model_copy(update={"server": server})
    async with TestClient(TestServer(Api(services, listener).application())) as http:
        http.session.headers["Authorization"] = f"Bearer {AUTH}"
        yield ApiClient(http=http, services=services)


async def next_page(api: ApiClient, headers: dict[str, str]) -> str:
    events = [
        {
            "id": f"00000000-0000-4000-8000-{number:012}",
            "occurred": "2026-01-01T00:00:00Z",
            "event": "x",
            "resource": {"prefect.resource.id": "r"},
        }
        for number in range(60)
    ]
    assert (await api.post("/events", events))[0] == 204
    body = {"filter": {"occurred": {"since": "2025-12-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"}}}
    status, page = await api.post("/events/filter", body, headers=headers)
    assert status == 200, page
    return str(page["next_page"])


async def test_the_next_page_has_the_address_that_the_client_knows(services: Services) -> None:
    async with serving(services, trusted_proxies=["127.0.0.1"]) as api:
        told = {FOR: "127.0.0.9", PROTO: "https", HOST: "localhost:8443"}
        assert (await next_page(api, told)).startswith("https://localhost:8443/api/events/filter/next?")


@pytest.mark.parametrize(
    ("told", "below"),
    [
        ("/flows", "/flows"),
        ("/tools/flows/", "/tools/flows"),
        ("flows", ""),
        ("/a/../b", ""),
        ("//elsewhere", ""),
        ("/a?b", ""),
    ],
)
async def test_the_next_page_is_below_the_path_that_the_proxy_has_taken_off(
    services: Services, told: str, below: str
) -> None:
    async with serving(services, trusted_proxies=["127.0.0.1"]) as api:
        found = await next_page(api, {FOR: "127.0.0.9", HOST: "localhost", "X-Forwarded-Prefix": told})
        assert found.startswith(f"http://localhost{below}/api/events/filter/next?")


async def test_from_anybody_else_the_scheme_is_not_believed(services: Services) -> None:
    async with serving(services) as api:
        told = {FOR: "127.0.0.9", PROTO: "https", HOST: "localhost:8443", "X-Forwarded-Prefix": "/flows"}
        assert (await next_page(api, told)).startswith(f"http://127.0.0.1:{api.http.port}/api/events/filter/next?")


async def test_only_the_clients_listener_believes_what_a_proxy_took_off(services: Services) -> None:
    async with serving(services, listener=Listener.SOCKET, trusted_proxies=["127.0.0.1"]) as api:
        found = await next_page(api, {HOST: "localhost", "X-Forwarded-Prefix": "/flows"})
        assert found.startswith(f"http://127.0.0.1:{api.http.port}/api/events/filter/next?")


async def test_the_runs_listener_believes_nobody(services: Services) -> None:
    proxies = Api(services, Listener.RUNS).proxies
    assert "127.0.0.1" not in proxies


async def test_clients_behind_one_proxy_count_for_themselves(services: Services) -> None:
    async with serving(services, trusted_proxies=["127.0.0.1"], max_sockets=1) as api:
        one, other = {FOR: "127.0.0.9"}, {FOR: "127.0.0.10"}
        async with api.http.ws_connect("/api/events/in", headers=one) as first:
            await first.ping()
            async with api.http.ws_connect("/api/events/in", headers=one) as second:
                message = await second.receive()
                assert (message.type, message.data) == (WSMsgType.CLOSE, 1013)
                assert "127.0.0.9 has too much under way" in str(message.extra)
            async with api.http.ws_connect("/api/events/in", headers=other) as third:
                await third.send_str("{}")
                assert not third.closed


async def test_nobody_comes_in_without_a_credential_where_a_proxy_does(services: Services) -> None:
    """It lets other hosts in, although the listener is on loopback."""
    open_one = services.settings
    assert open_one.is_open
    server = open_one.server.model_copy(update={"trusted_proxies": ["127.0.0.1"]})
    services.settings = open_one.model_copy(update={"server": server})
    assert not services.settings.is_open
    assert "a proxy" in services.settings.why_nobody_comes_in
    assert "a proxy" in str(services.settings.why_no_processes(workspaces=1, as_root=False))
    async with TestClient(TestServer(Api(services, Listener.CLIENTS).application())) as http:
        api = ApiClient(http=http, services=services)
        for headers in ({}, {FOR: "127.0.0.1"}, {FOR: CLIENT}, {FOR: CLIENT, HOST: "localhost"}):
            assert (await api.post("/flows/filter", {}, headers=headers))[0] == 401
