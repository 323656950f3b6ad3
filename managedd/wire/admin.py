"""The server itself: CSRF tokens, the default result storage, and the workspaces that a key opens."""

from __future__ import annotations

from managedd.wire.base import Id, Model, Row, Timestamp


class CsrfToken(Row):
    """A token that a browser's request must carry."""

    token: str
    client: str
    expiration: Timestamp


class ServerDefaultResultStorage(Model):
    """The block that results are kept in when nothing else is said."""

    default_result_storage_block_id: Id | None = None


class ServerDefaultResultStorageUpdate(Model):
    """The block to keep results in."""

    default_result_storage_block_id: Id


class CloudWorkspace(Model):
    """A workspace as `prefect cloud login` wants to see it; a handle is what stands in `--workspace account/workspace`."""

    account_id: Id
    account_name: str
    account_handle: str
    workspace_id: Id
    workspace_name: str
    workspace_description: str
    workspace_handle: str


class LoginCallback(Model):
    """Where `prefect cloud login` waits on a person's own computer."""

    success: str
    failure: str
