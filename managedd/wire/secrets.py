"""The key with which the store encrypts what is secret, as the operator sees and changes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from managedd.wire.base import Body, Int, Model, Timestamp


class SecretsRotation(Body):
    """The key to change to; without one, the daemon makes one beside the store."""

    key: Annotated[str | None, Field(max_length=256, repr=False)] = None
    """In base64."""
    source: Annotated[str, Field(max_length=4096)] | None = None
    """The file that it stands in."""


class SecretsStatus(Model):
    """What is known of the key, never the key."""

    key_id: str
    source: str
    """A path, MANAGEDD_SECRETS__KEY, or `own`: the file in the data directory."""
    since: Timestamp
    """When it began to encrypt."""
    envelopes: Int
    """How many rows have something encrypted."""
    left: Int
    """How many of them still have to be encrypted anew, by a rotation that is under way."""
    rotating: bool
    in_clear: bool
    """Whether rows are still being looked through for what an earlier version, or an earlier template, left in clear."""
