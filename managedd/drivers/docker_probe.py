"""The engine as a doctor asks it: looks at everything, and removes whatever it has made.

What is made carries a label of its own and no daemon's: no reconciler takes it for a run, and what a killed doctor left is found by the next.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import anyio
from aiodocker.exceptions import DockerError

from managedd.drivers.docker_end import timestamp_us
from managedd.drivers.docker_engine import FAULTS, Engine, doing, failed, is_status
from managedd.drivers.docker_logs import LogReader
from managedd.drivers.docker_network import gateway_of
from managedd.drivers.docker_spec import LABEL_INSTANCE, container_body, network_body, network_name
from managedd.model.drivers import RunSpec
from managedd.model.logs import LogCursor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

    from managedd.drivers.docker_spec import DockerSettings

LABEL_PROBE: Final = "managedd.doctor"
STALE_SECONDS: Final = 900.0
"""What is older was left by a doctor that was killed."""
REMOVE_SECONDS: Final = 20.0
LATE_SECONDS: Final = 2.0
"""How long after a request whose answer was not waited for the engine may still make what it asked for."""
OUTPUT_MAX_BYTES: Final = 1024 * 1024
ICC: Final = "com.docker.network.bridge.enable_icc"
BRIDGE_NAME: Final = "com.docker.network.bridge.name"


class Fault(StrEnum):
    """Why an engine can't be used."""

    PERMISSION = "permission"
    NO_SOCKET = "no_socket"
    REFUSED = "refused"
    """The socket or port is there, and nobody behind it."""
    TIMEOUT = "timeout"
    TLS = "tls"
    TOO_OLD = "too_old"
    OTHER = "other"


_FAULTS: Final = {
    errno.EACCES: Fault.PERMISSION,
    errno.EPERM: Fault.PERMISSION,
    errno.ENOENT: Fault.NO_SOCKET,
    errno.ECONNREFUSED: Fault.REFUSED,
    errno.ETIMEDOUT: Fault.TIMEOUT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """A bridge network as its host sees it."""

    id: str
    name: str
    bridge: str
    """The interface on the engine's host."""
    subnet: str | None
    gateway: str | None
    isolated: bool
    """The engine was told to keep containers on it apart."""


class DockerProbe:
    """A Docker-compatible engine, asked and left as it was."""

    def __init__(self, settings: DockerSettings, *, url: str | None, control_timeout_seconds: float = 10.0) -> None:
        self._settings = settings
        self._engine = Engine(url, control_timeout_seconds=control_timeout_seconds)

    @property
    def is_local(self) -> bool:
        """Whether it is reached over a socket of this host."""
        return self._engine.is_local

    async def open(self) -> dict[str, Any]:
        """The engine answers; what it says of its version. Raises ManagedError(DRIVER)."""
        try:
            await self._engine.open()
        except BaseException:
            await self._engine.close()
            raise
        return dict(self._engine.version)

    async def close(self) -> None:
        """Connections are closed."""
        await self._engine.close()

    async def info(self) -> Mapping[str, Any]:
        """What the engine says of itself and its host."""
        with doing("Asking the container engine about itself failed"):
            return await self._engine.docker.system.info()

    async def image(self, name: str) -> dict[str, Any] | None:
        """The image on the engine's host, or None."""
        with doing(f"Looking for image {name} failed"):
            try:
                return await self._engine.docker.images.inspect(name)
            except FAULTS as error:
                if is_status(error, 404):
                    return None
                raise

    async def registry_digest(self, name: str) -> str:
        """The digest that the registry has under that name now; nothing is pulled. Raises ManagedError(DRIVER) with its words."""
        with doing("The registry can't be asked"):
            found: Any = await self._engine.docker._query_json(f"distribution/{name}/json")
            return str(found["Descriptor"]["digest"])

    async def network_of(self, instance_id: str) -> NetworkFacts | None:
        """The network of that daemon, if it has made it already."""
        with doing("The networks could not be listed"):
            listed = await self._engine.docker.networks.list(filters={"label": f"{LABEL_INSTANCE}={instance_id}"})
        return next((_facts(each) for each in listed if each["Name"] == network_name(instance_id)), None)

    @contextlib.asynccontextmanager
    async def network(self) -> AsyncIterator[NetworkFacts]:
        """A network such as a daemon makes, for as long as the block lasts."""
        token = uuid.uuid4().hex[:12]
        name = f"{LABEL_PROBE.replace('.', '-')}-{token}"
        body = {**network_body(token), "Name": name, "Labels": {LABEL_PROBE: token}}
        networks = self._engine.docker.networks
        async with self._made("networks", name, {}, networks.create(body), "A network like the runs' own"):
            with doing("The network could not be looked at"):
                described: Any = await self._engine.docker._query_json(f"networks/{name}")
            yield _facts(described)

    @contextlib.asynccontextmanager
    async def container(
        self, network: str, *, image: str, command: Sequence[str], env: Mapping[str, str], limits: Mapping[str, Any]
    ) -> AsyncIterator[str]:
        """The name of a started container with a run's own limits, for as long as the block lasts."""
        token = uuid.uuid4().hex[:12]
        name = f"{LABEL_PROBE.replace('.', '-')}-{token}"
        spec = RunSpec(execution_id=token, flow_run_id=token, instance_id=token, image=image, **limits)
        body = container_body(spec, self._settings)
        body |= {
            "Cmd": [self._settings.python, *command],
            "Env": [f"{key}={value}" for key, value in {"TINI_SUBREAPER": "1", **env}.items()],
            "Labels": {LABEL_PROBE: token},
            "HostConfig": {**body["HostConfig"], "NetworkMode": network},
        }
        params = {"force": "true", "v": "true"}
        containers = self._engine.docker.containers
        async with self._made("containers", name, params, containers.create(body, name=name), "A container"):
            with doing("A container could not be started"):
                await self._engine.call("POST", f"containers/{name}/start")
            yield name

    async def address_of(self, container: str, network: str) -> str | None:
        """The container's address on `network`."""
        with doing("The container could not be looked at"):
            found: Any = await self._engine.docker._query_json(f"containers/{container}/json")
        address = ((found["NetworkSettings"].get("Networks") or {}).get(network) or {}).get("IPAddress")
        return str(address) if address else None

    async def exit_code(self, container: str) -> int | None:
        """None while it runs."""
        with doing("The container could not be looked at"):
            found: Any = await self._engine.docker._query_json(f"containers/{container}/json")
        state = found["State"]
        return int(state["ExitCode"]) if str(state.get("Status")).lower() in {"exited", "stopped", "dead"} else None

    async def output(self, container: str) -> list[str]:
        """The lines that it has printed so far."""
        params = {"stdout": "true", "stderr": "true", "timestamps": "true"}
        with doing("The container's output could not be read"):
            packed = await self._engine.download(f"containers/{container}/logs", params, max_bytes=OUTPUT_MAX_BYTES)
        reader = LogReader(LogCursor())
        return [line.text for line in (*reader.feed(packed or b""), *reader.finish())]

    async def sweep(self) -> int:
        """How many containers and networks of killed doctors were removed."""
        removed = 0
        with doing("What an earlier doctor left could not be looked for"):
            filters = {"label": LABEL_PROBE}
            containers: Any = await self._engine.docker._query_json(
                "containers/json", params={"all": "true", "filters": f'{{"label": ["{LABEL_PROBE}"]}}'}
            )
            networks = await self._engine.docker.networks.list(filters=filters)
        for each in containers:
            if time.time() - float(each["Created"]) > STALE_SECONDS:
                await self._remove("containers", each["Id"], {"force": "true", "v": "true"})
                removed += 1
        for network in networks:
            if _age_seconds(str(network.get("Created"))) > STALE_SECONDS and not network.get("Containers"):
                await self._remove("networks", network["Id"], {})
                removed += 1
        return removed

    @contextlib.asynccontextmanager
    async def _made(
        self, kind: str, name: str, params: Mapping[str, str], making: Awaitable[object], what: str
    ) -> AsyncIterator[None]:
        """It exists as long as the block lasts."""
        late_seconds = LATE_SECONDS
        try:
            with doing(f"{what} could not be made"):
                try:
                    await making
                except DockerError:
                    # The engine has answered that there is none.
                    late_seconds = 0.0
                    raise
            late_seconds = 0.0
            yield
        finally:
            await self._remove(kind, name, params, late_seconds=late_seconds)

    async def _remove(self, kind: str, name: str, params: Mapping[str, str], *, late_seconds: float = 0.0) -> None:
        """Nothing of that name is there; `late_seconds` for what the engine may make only now. Nothing stops this but time."""
        failure: BaseException | None = None
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_SECONDS):
            deadline = anyio.current_time() + late_seconds
            while True:
                try:
                    await self._engine.call("DELETE", f"{kind}/{name}", params)
                    return
                except FAULTS as error:
                    if is_status(error, 404) and anyio.current_time() >= deadline:
                        return
                    # 403 and 409: it is in use by what is being removed.
                    failure = error
                await anyio.sleep(0.3)
        raise failed(f"{kind[:-1]} {name} could not be removed, do so by hand", failure or TimeoutError())


def fault_of(error: BaseException) -> Fault:
    """What kind of failure is behind an error of `open`."""
    seen: BaseException | None = error
    while seen is not None:
        if "needs" in (getattr(seen, "detail", None) or ()):
            return Fault.TOO_OLD
        if isinstance(seen, AssertionError):
            return Fault.NO_SOCKET
        if isinstance(seen, ssl.SSLError):
            return Fault.TLS
        if isinstance(seen, TimeoutError):
            return Fault.TIMEOUT
        if isinstance(seen, OSError) and seen.errno in _FAULTS:
            return _FAULTS[seen.errno]
        seen = seen.__cause__ or seen.__context__
    return Fault.OTHER


def _facts(network: Mapping[str, Any]) -> NetworkFacts:
    options = network.get("Options") or {}
    configs = (network.get("IPAM") or {}).get("Config") or []
    return NetworkFacts(
        id=str(network["Id"]),
        name=str(network["Name"]),
        bridge=str(options.get(BRIDGE_NAME) or f"br-{network['Id'][:12]}"),
        subnet=next((str(config["Subnet"]) for config in configs if config.get("Subnet")), None),
        gateway=gateway_of(network),
        isolated=str(options.get(ICC)).lower() == "false",
    )


def _age_seconds(text: str) -> float:
    """The age of what the engine stamped so; 0 when that can't be read."""
    stamp = timestamp_us(text)
    return 0.0 if stamp is None else time.time() - stamp / 1_000_000
