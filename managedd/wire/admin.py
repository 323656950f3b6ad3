"""The server itself: CSRF tokens and the default result storage."""

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
