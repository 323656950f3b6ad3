"""Images: pulled once however many runs ask, in the registry's own words when it fails."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from aiodocker.exceptions import DockerError
from aiodocker.jsonstream import json_stream_stream

from managedd.drivers.docker_engine import FAULTS, doing, failed, is_status, words
from managedd.model.drivers import ImageError, PullPolicy
from managedd.model.images import is_image_reference
from managedd.model.urls import mask_urls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from managedd.drivers.docker_engine import Engine
    from managedd.model.drivers import Progress

PROGRESS_SECONDS = 5.0
"""How often a pull says how far it is."""
RETRY_SECONDS = (2.0, 5.0)
"""How long after a failure that passes by itself the pull is tried once more."""
_PASSES = re.compile(
    r"(?:status|http)\b[^\n]{0,80}\b(?:429|50[0234])\b|too ?many ?requests|internal server error|bad gateway|service unavailable|time-?out|timed out|"
    r"connection (?:reset|refused)|unexpected eof|: eof$|temporary failure|server misbehaving|try again",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Pull:
    """A pull under way and, once `ended`, how it went."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    succeeded: bool = False
    error: ImageError | None = None


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine, *, stall_seconds: float) -> None:
        self._engine = engine
        self._stall_seconds = stall_seconds
        self._pulls: dict[str, _Pull] = {}

    async def prepare(self, image: str, policy: PullPolicy, progress: Progress) -> None:
        """The image is on the engine's host; a pull that is under way is waited for, and its outcome is ours."""
        if not is_image_reference(image):
            raise ImageError(f"{image!r} is no image name")
        if policy is not PullPolicy.ALWAYS and await self._there(image) is not None:
            return
        if policy is PullPolicy.NEVER:
            raise ImageError("it is not on this host, and the pull policy is Never")
        while (under_way := self._pulls.get(image)) is not None:
            await progress(f"Waiting for image {image}, which another run is pulling")
            await under_way.ended.wait()
            if under_way.error is not None:
                raise ImageError(*under_way.error.args)
            if under_way.succeeded:
                return
            # That run was cancelled, or its connection failed: the next one pulls.
        mine = self._pulls[image] = _Pull()
        try:
            await self._pull_patiently(image, progress)
            mine.succeeded = True
        except ImageError as error:
            mine.error = error
            raise
        finally:
            del self._pulls[image]
            mine.ended.set()

    async def _pull_patiently(self, image: str, progress: Progress) -> None:
        for pause_seconds in RETRY_SECONDS:
            try:
                return await self._pull(image, progress)
            except ImageError as error:
                if not (isinstance(error.__cause__, DockerError) and _PASSES.search(str(error))):
                    raise
                await progress(f"Pulling image {image} failed, trying again in {pause_seconds:.0f} s: {error}")
            await anyio.sleep(pause_seconds)
        await self._pull(image, progress)
        return None

    async def _pull(self, image: str, progress: Progress) -> None:
        await progress(f"Pulling image {image}")
        layers = _Layers()
        said_at = anyio.current_time()
        try:
            async with self._engine.stream("POST", "images/create", {"fromImage": image, **_tag(image)}) as response:
                # The library reads the messages and finds the errors in them. Its own `pull` would leave the connection open when
                # cancelled, and it takes a connection that timed out for the end of the pull: both are ours to see to.
                messages = json_stream_stream(response)
                while (message := await self._next(messages)) is not None:
                    layers.take(message)
                    if anyio.current_time() - said_at >= PROGRESS_SECONDS:
                        said_at = anyio.current_time()
                        await progress(layers.line())
        except DockerError as error:
            raise ImageError(mask_urls(words(error))) from error
        except TimeoutError as error:
            raise ImageError(f"the registry sent nothing for {self._stall_seconds:.0f} s") from error
        except FAULTS as error:
            raise failed(f"Pulling image {image} failed", error) from error
        found = await self._there(image)
        if found is None:
            raise ImageError("the pull ended, but the image is not there")
        await progress(f"Pulled image {image} ({layers.count()}{_digest(found)})")

    async def _next(self, messages: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
        with anyio.fail_after(self._stall_seconds):
            return await anext(messages, None)

    async def _there(self, image: str) -> dict[str, Any] | None:
        with doing(f"Looking for image {image} failed"):
            try:
                return await self._engine.docker.images.inspect(image)
            except DockerError as error:
                if is_status(error, 404):
                    return None
                raise


class _Layers:
    """How far a pull is, from the engine's messages; those of unknown form tell nothing."""

    def __init__(self) -> None:
        self._done: dict[str, bool] = {}

    def take(self, message: Mapping[str, Any]) -> None:
        layer, status = message.get("id"), message.get("status")
        if (
            not isinstance(layer, str)
            or not isinstance(status, str)
            or status.startswith("Pulling from")
            or len(self._done) > 1000
        ):
            return
        self._done[layer] = status in {"Pull complete", "Already exists"}

    def count(self) -> str:
        return f"{len(self._done)} layers"

    def line(self) -> str:
        return f"{sum(self._done.values())} of {len(self._done)} layers are there"


def _tag(image: str) -> dict[str, str]:
    """Without a tag an engine would pull them all."""
    return {} if ":" in image.rpartition("/")[2] or "@" in image else {"tag": "latest"}


def _digest(found: Mapping[str, Any]) -> str:
    digests = found.get("RepoDigests") or [found.get("Id") or ""]
    digest = str(digests[0]).rpartition("@")[2]
    return f", {digest}" if digest else ""
