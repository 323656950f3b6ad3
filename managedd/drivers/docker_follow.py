"""A container's output from its engine: followed to the container's end, whatever becomes of connections and of the engine."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import structlog
from aiodocker.exceptions import DockerError

from managedd.drivers.docker_end import timestamp_us
from managedd.drivers.docker_engine import BACKOFF_SECONDS, FAULTS, failed, is_status, words
from managedd.drivers.docker_logs import FrameError
from managedd.drivers.docker_look import inspect_patiently, liveness_of
from managedd.model.drivers import Liveness

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

    from managedd.drivers.docker_engine import Engine
    from managedd.drivers.docker_logs import LogReader, Recheck
    from managedd.model.logs import RawLine

LOG_ATTEMPTS: Final = 5
SILENT_ATTEMPTS: Final = 2
"""How often a reading after the container's end may fall silent without having told anything new."""
SILENCE_SECONDS: Final = 15.0
"""How long a follower's stream may be silent before it is asked whether the container still runs."""
ENDED_SECONDS: Final = 1.0
"""The same when somebody has seen that it does not."""
LAST_SILENCE_SECONDS: Final = 300.0
"""How long a stream may be silent whose end the engine tells: it may have to search full files for the first line, which takes it seconds of
a processor for each reading."""
SEARCHES: Final = 4
"""How many readings that do not follow may be without their first line at once; after a restart there are as many as containers have ended."""

_log = structlog.get_logger(__name__)


def stamps_each_entry(version: Mapping[str, Any]) -> bool:
    """Whether the engine that says this of itself stamps each entry of a log, and not all alike that it reads at once."""
    return not any("podman" in str(part.get("Name")).lower() for part in version.get("Components") or ())


class Patience:
    """How long one follower waits for a silent stream, and for its turn to have the engine search for it."""

    def __init__(self, turns: anyio.CapacityLimiter) -> None:
        self.turns = turns
        self._has_ended = False
        self._scope = anyio.CancelScope()

    def scope(self) -> anyio.CancelScope:
        """Is left when there was silence for long enough."""
        self._scope = anyio.move_on_after(ENDED_SECONDS if self._has_ended else SILENCE_SECONDS)
        return self._scope

    def shorten(self) -> None:
        """The container has ended: not much more can come."""
        self._has_ended = True
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + ENDED_SECONDS)


class Followers:
    """Who follows which container. A stream that has stalled, as at a rotation, says nothing of its end."""

    def __init__(self) -> None:
        self._of: defaultdict[str, set[Patience]] = defaultdict(set)
        self._turns = anyio.CapacityLimiter(SEARCHES)

    @contextlib.contextmanager
    def one_of(self, container_id: str) -> Iterator[Patience]:
        """One more of the container's."""
        patience = Patience(self._turns)
        self._of[container_id].add(patience)
        try:
            yield patience
        finally:
            self._of[container_id].discard(patience)
            if not self._of[container_id]:
                del self._of[container_id]

    def ended(self, container_id: str) -> None:
        """The container has ended, or is gone."""
        for patience in self._of.get(container_id, ()):
            patience.shorten()


async def follow(
    engine: Engine, container_id: str, reader: LogReader, patience: Patience, *, file_bytes: int
) -> AsyncGenerator[RawLine, None]:
    """The container's lines, over every end of a stream that is not the end of the container.

    Lines that the engine has not told because its files of `file_bytes` were replaced too fast come last, as far as they are still there.
    Raises ManagedError(DRIVER) when the engine won't tell what it has, also when the container has ended and the reading does not get to an end.
    """
    quiet = failures = 0
    followed = False
    while True:
        # Asked before reading: of a container that had ended by now, this reading is the last.
        container = await inspect_patiently(engine, container_id)
        if container is None:
            break
        liveness = liveness_of(container)
        if liveness is Liveness.CREATED:
            await anyio.sleep(0.1)
            continue
        whole, heard = False, False
        follows = liveness is Liveness.RUNNING
        followed |= follows
        try:
            picky = None if await _needs_all(engine, container, reader) else reader
            async with _reading(engine, container_id, reader.since, patience, follows=follows) as chunks:
                # Only a follower's stream may stall. The end of any other the engine tells, however long it searches before.
                while chunk := await (
                    _next_followed(engine, container_id, chunks, picky, patience) if follows else _next_kept(chunks)
                ):
                    for line in reader.feed(chunk):
                        heard = True
                        yield line
            whole, failures = True, 0
        except (*FAULTS, FrameError) as error:
            failures = 1 if heard else failures + 1
            if is_status(error, 409) and not follows:
                break  # it is being removed: there is nothing more to be had
            if _is_final(error, failures, follows=follows):
                raise failed("The container's output could not be read", error) from error
            _log.debug("engine.logs_interrupted", error=words(error))
        if whole and not follows:
            break
        reader.reconnect()
        quiet = 0 if heard else quiet + 1
        if quiet:
            await anyio.sleep(BACKOFF_SECONDS[min(quiet, len(BACKOFF_SECONDS)) - 1])
    for line in reader.finish():
        yield line
    if container is not None and followed and reader.may_have_missed(file_bytes):
        async with contextlib.aclosing(_missed(engine, container_id, reader.recheck(), patience)) as lines:
            async for line in lines:
                yield line


async def _missed(
    engine: Engine, container_id: str, recheck: Recheck | None, patience: Patience
) -> AsyncGenerator[RawLine, None]:
    """What the engine has kept and not told its follower."""
    if recheck is None:
        return
    found = 0
    try:
        async with _reading(engine, container_id, recheck.since, patience, follows=False) as chunks:
            while chunk := await _next_kept(chunks):
                for line in recheck.feed(chunk):
                    found += 1
                    yield line
                # Mostly there is nothing to tell, and it all lies ready: the others want their turns.
                await anyio.lowlevel.checkpoint()
    except (*FAULTS, FrameError) as error:
        # Everything else of it is there.
        _log.warning("engine.logs_not_rechecked", error=words(error))
    for line in recheck.finish():
        found += 1
        yield line
    if found:
        _log.info("engine.logs_missed", container=container_id, lines=found)


@contextlib.asynccontextmanager
async def _reading(
    engine: Engine, container_id: str, since: str | None, patience: Patience, *, follows: bool
) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """What the engine tells. Raises TimeoutError when it does not even begin: to followers, some engines send no head before there is
    something to tell."""
    params = {"stdout": "true", "stderr": "true", "timestamps": "true", "follow": str(follows).lower()}
    if since is not None:
        params["since"] = since
    opening = engine.stream("GET", f"containers/{container_id}/logs", params)
    async with contextlib.AsyncExitStack() as stack:
        if follows:
            with patience.scope() as scope:
                chunks: AsyncIterator[bytes] = (await stack.enter_async_context(opening)).content.iter_any()
            if scope.cancelled_caught:
                raise TimeoutError
        else:
            async with patience.turns:
                with anyio.fail_after(LAST_SILENCE_SECONDS):
                    rest = (await stack.enter_async_context(opening)).content.iter_any()
                chunks = _Begun(await _next_kept(rest), rest)
        yield chunks


class _Begun:
    """An iterator whose first item is here already."""

    def __init__(self, first: bytes | None, rest: AsyncIterator[bytes]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        return await anext(self._rest) if first is None else first


async def _needs_all(engine: Engine, container: Mapping[str, Any], reader: LogReader) -> bool:
    """Whether the reading has to begin at the very first line: what the container prints, or printed last, is stamped earlier than where
    `reader` would begin."""
    if reader.since is not None:
        exited = liveness_of(container) is Liveness.EXITED
        shown_us = timestamp_us(container["State"].get("FinishedAt")) if exited else await engine.now_us()
        if shown_us is not None:
            reader.clock_shows(shown_us)
    return reader.since is None


async def _next_followed(
    engine: Engine, container_id: str, chunks: AsyncIterator[bytes], picky: LogReader | None, patience: Patience
) -> bytes | None:
    """What a follower's stream brings next; None at its end, and when it is silent although the container has ended, or because it keeps
    something back from the reader, which did not ask for all."""
    while True:
        with patience.scope():
            return await anext(chunks, None)
        container = await inspect_patiently(engine, container_id)
        if container is None or liveness_of(container) is not Liveness.RUNNING:
            return None
        if picky is not None and await _needs_all(engine, container, picky):
            return None


async def _next_kept(chunks: AsyncIterator[bytes]) -> bytes | None:
    """The same of a stream that does not follow: None at its end alone. Raises TimeoutError."""
    with anyio.fail_after(LAST_SILENCE_SECONDS):
        return await anext(chunks, None)


def _is_final(error: BaseException, failures: int, *, follows: bool) -> bool:
    """Whether it is given up after so many failures without anything new: never while the container runs and its engine merely is away."""
    if isinstance(error, FrameError):
        return True
    if isinstance(error, TimeoutError) and not follows:
        return failures >= SILENT_ATTEMPTS
    return failures >= LOG_ATTEMPTS and (isinstance(error, DockerError) or not follows)
