"""Where a run would reach the API: on the daemon's own network at its own listener, or at one of ours in its place."""

from __future__ import annotations

import contextlib
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread
from anyio.abc import SocketAttribute

from managedd.doctor.examination import NotApplicable
from managedd.doctor.finding import problem
from managedd.doctor.patient import Listening
from managedd.drivers.docker_network import is_address_of_this_host
from managedd.engine_room import kept_port
from managedd.listeners import bracketed
from managedd.store import lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Patient
    from managedd.drivers.docker_probe import NetworkFacts

CONTAINER: Final = "container"
ASKED_SECONDS: Final = 5.0
ASKED_MAX_BYTES: Final = 16_384
WATCH_SECONDS: Final = 0.05


class NothingMore(Exception):
    """There is nothing more to be had; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.seen)
        self.finding = finding


async def network_for(patient: Patient, stack: contextlib.AsyncExitStack) -> tuple[NetworkFacts, bool]:
    """The daemon's own network when it has one, else one like it for as long as this lasts."""
    instance_id = patient.instance_id
    found = None if instance_id is None else await patient.probe.network_of(instance_id)
    if found is not None:
        return found, False
    return await stack.enter_async_context(patient.probe.network()), True


async def listening_on(patient: Patient, network: NetworkFacts, stack: contextlib.AsyncExitStack) -> Listening:
    """Where the API is for runs: the daemon's listener, or one of ours at the address and port that it would take.

    Raises NothingMore, or NotApplicable, when there can be none.
    """
    if patient.status is not None:
        engine = patient.status.get("engine") or {}
        if engine.get("problem") or not engine.get("runs_api_url"):
            words = engine.get("problem") or "it has no address for runs yet"
            raise NothingMore(problem(CONTAINER, f"the daemon can't run anything: {words}", "see what it says"))
        url = str(engine["runs_api_url"])
        return Listening(url=url, real=True)
    if patient.locked:
        raise NotApplicable("a daemon holds the data directory's lock and does not answer")
    runs = patient.settings.runs
    gateway = network.gateway
    host = runs.listen_host or (gateway if gateway is not None and is_address_of_this_host(gateway) else None)
    if host is None:
        raise NothingMore(
            problem(
                CONTAINER,
                f"the container engine's gateway ({gateway}) is not an address of this host, so nothing can listen there for runs",
                "set runs.listen_host to an address of this host that runs reach, and runs.api_url to the URL under which they reach it",
            )
        )
    wanted = kept_port(patient.facts.get, runs.listen_port)
    token = secrets.token_hex(16)
    standing_in = _standing_in(host, (wanted, runs.listen_port, 0), token, patient.settings.store.data_dir)
    try:
        port, gave_way = await stack.enter_async_context(standing_in)
    except OSError as error:
        raise NothingMore(
            problem(
                CONTAINER,
                f"can't listen on {host} for runs: {error.strerror or error}",
                "set runs.listen_host to an address of this host",
            )
        ) from error
    url = runs.api_url or f"http://{bracketed(gateway or host)}:{port}/api"
    return Listening(url=url, real=False, wanted_port=wanted, port=port, token=token, gave_way=gave_way)


@contextlib.asynccontextmanager
async def _standing_in(
    host: str, ports: tuple[int, ...], token: str, data_dir: Path
) -> AsyncIterator[tuple[int, anyio.Event]]:
    """Something answers every request at `host` and the yielded port with the token, in the daemon's place.

    A daemon that starts meanwhile shall find its port free, or it would keep another from then on: the port is given up as soon as the data
    directory's lock is held, long before a daemon comes to listen for runs. The event says that this was so.
    """
    *first, last = dict.fromkeys(ports)
    listener = None
    for port in first:
        with contextlib.suppress(OSError):
            listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
            break
    if listener is None:
        listener = await anyio.create_tcp_listener(local_host=host, local_port=last)
    gave_way = anyio.Event()

    async def answer(client: SocketStream) -> None:
        async with client:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError), anyio.move_on_after(ASKED_SECONDS):
                asked = b""
                while b"\r\n\r\n" not in asked and len(asked) < ASKED_MAX_BYTES:
                    asked += await client.receive()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(token)}\r\nConnection: close\r\n\r\n"
                await client.send(head.encode() + token.encode())

    async def watch(serving: anyio.CancelScope) -> None:
        # Who may not look at the lock can't be in the way of a daemon's own port either.
        with contextlib.suppress(OSError):
            while True:
                if await to_thread.run_sync(partial(lock.is_locked, data_dir), abandon_on_cancel=True):
                    break
                await anyio.sleep(WATCH_SECONDS)
            gave_way.set()
            serving.cancel()

    async def serve(serving: anyio.CancelScope) -> None:
        with serving:
            await listener.serve(answer)
        await listener.aclose()

    async with listener, anyio.create_task_group() as tasks:
        serving = anyio.CancelScope()
        tasks.start_soon(serve, serving, name="stand-in listener")
        tasks.start_soon(watch, serving, name="stand-in's watch")
        yield int(listener.extra(SocketAttribute.local_port)), gave_way  # noqa: S610 (a socket's, not a query's)
        tasks.cancel_scope.cancel()
