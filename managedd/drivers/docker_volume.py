"""The volume with the files that all runs of one daemon share: filled once, read-only in every run, replaced and never mended.

An engine makes an empty volume of any name that a container asks for. So a name is used for one volume only, what we have made bears our
labels, and a run is started when a look at the volume, which its container holds by then, has shown them.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import uuid
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from aiodocker.exceptions import DockerError

from managedd.drivers.docker_engine import FAULTS, doing, is_status, words
from managedd.drivers.docker_spec import (
    LABEL_FILES,
    LABEL_INSTANCE,
    archive,
    digest_of,
    filler_body,
    volume_body,
    volume_name,
    volume_prefix,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from managedd.drivers.docker_engine import Engine

_log = structlog.get_logger(__name__)


class Volume:
    """The volume of one instance on one engine."""

    def __init__(self, engine: Engine, instance_id: str, files: Mapping[str, tuple[bytes, int]]) -> None:
        self._engine = engine
        self._instance_id = instance_id
        self._files = files
        self._digest = digest_of(files)
        self._lock = anyio.Lock()
        self._name: str | None = None
        self._in_use = False
        """Whether volumes that were to be removed were held by somebody."""

    async def ensure(self, image: str) -> str:
        """The name of a volume with the files in it, made through a container of that image when there is none."""
        if self._name is None:
            async with self._lock:
                if self._name is None:
                    with doing("The volume with the runs' files could not be made"):
                        self._name = await self._found(image) or await self._made(image)
                    await self._sweep(self._name)
        return self._name

    async def is_whole(self, name: str) -> bool:
        """Whether the volume that a container has just been made with is the one that was filled; when not, none is taken for it again."""
        with doing("The volume with the runs' files could not be looked at"):
            try:
                found: Any = await self._engine.docker._query_json(f"volumes/{name}")
            except DockerError as error:
                if not is_status(error, 404):
                    raise
                found = {}
        labels = found.get("Labels") or {}
        if (labels.get(LABEL_INSTANCE), labels.get(LABEL_FILES)) == (self._instance_id, self._digest):
            return True
        if self._name == name:
            _log.warning("engine.volume_lost", volume=name)
            self._name = None
        return False

    async def tidy(self) -> None:
        """A container was removed: what was left because of it goes too."""
        if self._in_use and self._name is not None and not self._lock.locked():
            async with self._lock:
                await self._sweep(self._name)

    async def _found(self, image: str) -> str | None:
        """A volume that an earlier start has filled, when everything in it is as it should be."""
        await self._remove_fillers()
        label = [f"{LABEL_INSTANCE}={self._instance_id}", f"{LABEL_FILES}={self._digest}"]
        for name in await volume_names(self._engine, {"label": label}):
            folder = _folder()
            async with self._filler(image, name, folder) as container:
                most = 2 * len(self._packed(folder))
                packed = await self._engine.file(container, f"/{folder}", max_bytes=most)
            if _content(packed, folder) == {path: content for path, (content, _) in self._files.items()}:
                return name
        return None

    async def _made(self, image: str) -> str:
        token = uuid.uuid4().hex[:8]
        name = volume_name(self._instance_id, self._digest, token)
        body = volume_body(self._instance_id, self._digest, token)
        try:
            await self._engine.docker._query_json("volumes/create", method="POST", data=body)
            folder = _folder()
            async with self._filler(image, name, folder) as container:
                await self._engine.upload(f"containers/{container}/archive", {"path": "/"}, self._packed(folder))
        except BaseException:
            # Every try that follows would look into it.
            with anyio.CancelScope(shield=True):
                await self._undo(name)
            raise
        _log.info("engine.volume_made", volume=name)
        return name

    def _packed(self, folder: str) -> bytes:
        return archive(self._files, folder, uid=0, gid=0)

    @contextlib.asynccontextmanager
    async def _filler(self, image: str, volume: str, folder: str) -> AsyncIterator[str]:
        """The id of a container in which the volume can be reached, for as long as the block lasts."""
        body = filler_body(self._instance_id, self._digest, image, volume, f"/{folder}")
        container = await self._engine.docker.containers.create(body, name=f"{volume}-{folder[-8:]}")
        try:
            yield container.id
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.call("DELETE", f"containers/{container.id}", {"force": "true"})

    async def _remove_fillers(self) -> None:
        """None is left by a daemon that was killed: it would hold its volume for good."""
        label = [f"{LABEL_INSTANCE}={self._instance_id}", LABEL_FILES]
        every = {"all": "true", "filters": json.dumps({"label": label})}
        for container in await self._engine.docker._query_json("containers/json", params=every):
            await self._engine.call("DELETE", f"containers/{container['Id']}", {"force": "true"})

    async def _sweep(self, kept: str) -> None:
        """Of this daemon's volumes only that one is left, and those in which runs still are."""
        self._in_use = False
        try:
            for name in await volumes_of(self._engine, self._instance_id):
                if name != kept:
                    await self._remove(name)
        except FAULTS as error:
            _log.warning("engine.volumes_left", error=words(error))

    async def _undo(self, name: str) -> None:
        """Nothing is left of a volume that could not be filled, also where the engine has done what it said that it could not."""
        try:
            await self._remove_fillers()
            await self._remove(name)
        except FAULTS as error:
            _log.warning("engine.volumes_left", error=words(error))

    async def _remove(self, name: str) -> None:
        try:
            await self._engine.call("DELETE", f"volumes/{name}")
        except DockerError as error:
            if is_status(error, 409):
                self._in_use = True
            elif not is_status(error, 404):
                raise


async def volumes_of(engine: Engine, instance_id: str) -> list[str]:
    """The names of that daemon's volumes, and of those that an engine has made empty in the place of one."""
    prefix = volume_prefix(instance_id)
    return [name for name in await volume_names(engine, {"name": [prefix]}) if name.startswith(prefix)]


async def volume_names(engine: Engine, filters: Mapping[str, list[str]]) -> list[str]:
    """The names of the volumes that the engine finds so."""
    found: Any = await engine.docker._query_json("volumes", params={"filters": json.dumps(filters)})
    return [str(volume["Name"]) for volume in found.get("Volumes") or []]


def _folder() -> str:
    return f"managedd-{uuid.uuid4().hex}"


def _content(packed: bytes | None, folder: str) -> dict[str, bytes]:
    """The files in the tar that an engine gave of `folder`; empty when it is none."""
    found: dict[str, bytes] = {}
    with contextlib.suppress(tarfile.TarError, EOFError), tarfile.open(fileobj=io.BytesIO(packed or b"")) as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            if file is not None:
                found[entry.name.removeprefix(f"{folder}/")] = file.read()
    return found
