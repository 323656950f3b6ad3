"""The audit log, as administrators and the operator read it."""

from __future__ import annotations

from managedd.wire.base import Id, Int, Model, Timestamp


class AuditEntry(Model):
    """A change that somebody asked for, or a refusal."""

    id: Id
    at: Timestamp
    workspace_id: Id | None
    """None: of the daemon as a whole."""
    account: str | None
    workspace: str | None
    """Both handles; None also for a workspace that is gone."""
    actor: str
    """`operator` (a command on the host, or anybody while no key is needed), `client` (`server.auth_string`), `key`, `run`, `unknown`."""
    actor_id: str | None
    """The key's id, or the flow run's."""
    actor_name: str | None
    address: str | None
    """None: the socket in the data directory."""
    operation: str
    """Method and path as the API declares them; `authenticate` for wrong credentials."""
    named: dict[str, str]
    """What the path names, and what was made."""
    status: Int
    times: Int
    """Refusals of one minute are one entry."""


class AuditPage(Model):
    """Entries, newest first."""

    entries: list[AuditEntry]
    next: Id | None
    """`before` of the next page; None: this was the last one."""
