"""What the checks know of the host so far: each fact is set by one check and read by those after it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from managedd.config import Settings
    from managedd.doctor.judgement.engine import Choice
    from managedd.drivers.docker_probe import DockerProbe, NetworkFacts
    from managedd.drivers.docker_spec import DockerSettings

Status = dict[str, Any]
DEFAULT_WORKSPACE = "default/default"
"""Account and handle of the workspace that every store has; it keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where runs are told to reach the API, and whether that is the daemon's own listener or ours in its place."""

    url: str
    real: bool
    wanted_port: int = 0
    """Of ours: the port that it should have, the one that it got, what it answers with, and whether a daemon has started and has it now."""
    port: int = 0
    token: str = ""
    gave_way: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a container of the runs' image saw on the runs' network."""

    network: NetworkFacts
    listening: Listening
    answers: Mapping[str, Mapping[str, Any]]
    """By target: `outcome` answered, refused, timeout, unreachable, unresolved or failed, and what belongs to it."""
    addresses: Mapping[str, str]
    """This host's own addresses that were tried: address → interface."""
    limits: Mapping[str, int | None]
    now: float
    before: float
    after: float
    python: str
    prefect: str | None
    neighbour: str | None
    """Why there was no other container to be tried; None: there was one."""
    wall: Mapping[str, Any] | None = None
    """What keeps runs from the host: `holds`, `reason`, `mend`; None: nobody says."""


@dataclass(slots=True, kw_only=True)
class Patient:
    """One host, one data directory, one set of settings."""

    settings: Settings
    docker: DockerSettings
    ask: Callable[[], Awaitable[Status]]
    """The daemon's own `status`. Raises ManagedError when none answers."""
    began_wall: float = field(default_factory=time.time)
    began_monotonic: float = field(default_factory=time.monotonic)
    status: Status | None = None
    """None: no daemon answers."""
    locked: bool = False
    """Somebody holds the data directory's lock."""
    locked_by: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the store of a daemon that does not run keeps: instance_id, runs_port."""
    workspaces: int | None = None
    """How many its store has; None: not known."""
    plans: Mapping[str, str] = field(default_factory=dict)
    """Workspace, `account/handle` → the plan that it is on, as far as daemon or store tell."""
    choice: Choice | None = None
    """What runs run in; None: not decided yet."""
    engine: DockerProbe | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    inside: Inside | None = None

    @property
    def probe(self) -> DockerProbe:
        """The open engine; only for checks that need `container engine`."""
        assert self.engine is not None
        return self.engine

    @property
    def instance_id(self) -> str | None:
        """The daemon's identity, when it has one already."""
        found = self.status.get("instance_id") if self.status else self.facts.get("instance_id")
        return found if isinstance(found, str) and found else None

    async def close(self) -> None:
        """Connections are closed."""
        if self.engine is not None:
            await self.engine.close()
