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
PROCESS: Final = "API from a process"
LOOPBACK: Final = "127.0.0.1"
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
    """Where the API is for containers: the daemon's listener, or one of ours at the address and port that it would take.

    Raises NothingMore, or NotApplicable, when there can be none.
    """
    real = _of_the_daemon(patient, CONTAINER)
    if real is not None:
        return real
    gateway = network.gateway
    host = gateway if gateway is not None and is_address_of_this_host(gateway) else None
    return await _in_its_place(patient, host, reached=gateway, stack=stack, check=CONTAINER)


async def listening_for_processes(patient: Patient, stack: contextlib.AsyncExitStack) -> Listening:
    """The same for processes of this host. Raises likewise."""
    real = _of_the_daemon(patient, PROCESS)
    if real is not None:
        return real
    return await _in_its_place(patient, LOOPBACK, reached=LOOPBACK, stack=stack, check=PROCESS)


def _of_the_daemon(patient: Patient, check: str) -> Listening | None:
    if patient.status is None:
        return None
    engine = patient.status.get("engine") or {}
    if engine.get("problem") or not engine.get("runs_api_url"):
        words = engine.get("problem") or "it has no address for runs yet"
        raise NothingMore(problem(check, f"the daemon can't run anything: {words}", "see what it says"))
    return Listening(url=str(engine["runs_api_url"]), real=True)


async def _in_its_place(
    patient: Patient, own: str | None, *, reached: str | None, stack: contextlib.AsyncExitStack, check: str
) -> Listening:
    if patient.locked:
        raise NotApplicable("a daemon holds the data directory's lock and does not answer")
    runs = patient.settings.runs
    host = runs.listen_host or own
    if host is None:
        raise NothingMore(
            problem(
                check,
                f"the container engine's gateway ({reached}) is not an address of this host, so nothing can listen there for runs",
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
                check,
                f"can't listen on {host} for runs: {error.strerror or error}",
                "set runs.listen_host to an address of this host",
            )
        ) from error
    url = runs.api_url or f"http://{bracketed(reached or host)}:{port}/api"
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
