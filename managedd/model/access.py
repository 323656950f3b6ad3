"""Who may do what: the roles of keys, what an operation asks for, and what of it a run may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum


class Role(StrEnum):
    """What a key may do in its workspace, as `managedd key create --role` has it."""

    VIEWER = "viewer"
    """Sees everything but secrets."""
    RUNNER = "runner"
    """Also runs flows and deployments, here or as a worker, and steers their runs."""
    DEVELOPER = "developer"
    """Also makes, changes and deletes what there is in the workspace."""
    ADMIN = "admin"
    """Also makes and revokes keys."""


class Level(IntEnum):
    """What an operation asks for. Each includes those below it."""

    ANY = 0
    """A credential of any kind."""
    VIEW = 1
    RUN = 2
    BUILD = 3
    ADMIN = 4
    OVERSEE = 5
    """Sees every workspace: the holders of `server.auth_string`."""
    OPERATE = 6
    """The host's own business: the local socket, or a listener that asks nobody."""

    @property
    def owner(self) -> str:
        """Who has it, in the words of an error."""
        return _OWNERS[self]


_OWNERS = {
    Level.ANY: "any key",
    Level.VIEW: "the role viewer",
    Level.RUN: "the role runner",
    Level.BUILD: "the role developer",
    Level.ADMIN: "the role admin",
    Level.OVERSEE: "server.auth_string, or a command on the daemon's host",
    Level.OPERATE: "a command on the daemon's host",
}

LEVELS = {
    Role.VIEWER: Level.VIEW,
    Role.RUNNER: Level.RUN,
    Role.DEVELOPER: Level.BUILD,
    Role.ADMIN: Level.ADMIN,
}
"""What each role reaches."""


class OfRuns(Enum):
    """What of an operation a run's key opens."""

    NOTHING = "nothing"
    FREE = "free"
    """Whatever it names in the workspace."""
    OWN_RUN = "own run"
    """The flow run in its path is the key's, or below it."""
    OWN_TASK_RUN = "own task run"
    """The task run in its path is of the key's flow run, or of one below it."""
    STATED = "stated"
    """What its body, or what it finds, belongs to the key's run: the handler's transaction checks it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may use an operation."""

    level: Level
    runs: OfRuns
