"""The real client over https and wss: its requests, its events, its followers, and the certificate that it trusts."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import Authority
from tests.support.daemon import LiveDaemon
from tests.support.prefect_user import PrefectUser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Certificate
    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.client, pytest.mark.slow]

ADDRESS = "127.0.0.1"
TALK = """
import asyncio, json, uuid
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.clients import get_events_client, get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

async def main():
    name = f"tls.{uuid.uuid4()}"
    async with get_client() as client:
        await client.hello()
        url = str(client.api_url)
    async with get_events_subscriber(filter=EventFilter(event=EventNameFilter(name=[name]))) as subscriber:
        async with get_events_client() as events:
            for number in range(120):
                await events.emit(Event(event=name, resource={"prefect.resource.id": "tls"}, payload={"n": number}))
        async for event in subscriber:
            seen = event.event
            break
    print("TALKED", json.dumps({"url": url, "name": name, "seen": seen}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.certificate(ADDRESS)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[LiveDaemon]:
    made = LiveDaemon(
        tmp_path_factory.mktemp("daemon"),
        docker_host=None,
        settings={
            "server": {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)},
            "runs": {"driver": "process"},
            "process": {"trusted": True},
        },
    )
    made.start(engine=False)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def user(
    prefect_venv: Provisioned, daemon: LiveDaemon, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> PrefectUser:
    folder = tmp_path_factory.mktemp("user")
    return PrefectUser(prefect_venv, daemon.url, folder, PREFECT_API_SSL_CERT_FILE=str(authority.bundle))


def ask(daemon: LiveDaemon, authority: Authority, path: str, body: Any = None) -> tuple[Any, str]:
    """The answer, and the serial number of the certificate that came with it."""
    context = ssl.create_default_context(cafile=authority.bundle)
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(daemon.url + path, data=data, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=20) as answer:
        shown = answer.fp.raw._sock.getpeercert()
        return json.loads(answer.read()), str(shown["serialNumber"])


def test_the_daemon_tells_an_https_address(daemon: LiveDaemon) -> None:
    assert daemon.url.startswith("https://127.0.0.1:")
    assert daemon.events(event="daemon.ready")[-1]["url"] == daemon.url


def test_the_clients_requests_and_sockets_go_by_tls(
    user: PrefectUser, daemon: LiveDaemon, authority: Authority
) -> None:
    done = user.python(TALK)
    told = json.loads(next(line for line in done.out.splitlines() if line.startswith("TALKED ")).split(" ", 1)[1])
    assert told["url"].startswith(daemon.url)
    assert told["seen"] == told["name"]
    page, _ = ask(daemon, authority, "/events/filter", {"filter": {"event": {"name": [told["name"]]}}})
    assert page["total"] == 120
    assert page["next_page"].startswith(f"{daemon.url}/events/filter/next?page-token=")
    following, _ = ask(daemon, authority, page["next_page"].removeprefix(daemon.url))
    assert len(following["events"]) == 50


def test_the_command_line_goes_by_tls(user: PrefectUser) -> None:
    assert "work pool" in user.prefect("work-pool", "ls").text.lower()


def test_who_does_not_trust_the_authority_is_told_so(
    prefect_venv: Provisioned, daemon: LiveDaemon, tmp_path: Path
) -> None:
    stranger = PrefectUser(prefect_venv, daemon.url, tmp_path)
    done = stranger.python(TALK, code=None)
    assert done.code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.text


def test_the_operators_commands_need_no_certificate(daemon: LiveDaemon) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "managedd", "status", "--json", "--data-dir", str(daemon.data_dir)],
        capture_output=True,
        text=True,
        check=True,
        env=daemon.environment,
    )
    assert json.loads(done.stdout)["url"] == daemon.url


def test_a_signal_brings_a_new_certificate(daemon: LiveDaemon, authority: Authority, certificate: Certificate) -> None:
    _, before = ask(daemon, authority, "/admin/version")
    authority.certificate(ADDRESS)
    daemon.reload()
    deadline = time.monotonic() + 20
    while not daemon.events(event="certificate.reloaded"):
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.05)
    _, after = ask(daemon, authority, "/admin/version")
    assert after != before
    assert not daemon.complaints()
