"""Identifiers: UUID strings. New ones are version 7, so that they sort by time and index well (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid

DEFAULT_ACCOUNT_ID = "00000000-0000-4000-8000-00000000a000"
"""The account of the default workspace."""
DEFAULT_WORKSPACE_ID = "00000000-0000-4000-8000-000000000001"
"""The workspace that `/api/…` without a workspace means."""


def new_id() -> str:
    """A version 7 UUID: 48 bits of milliseconds, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10))
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in any of its usual spellings."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def canonical(text: str | uuid.UUID) -> str:
    """The lower-case, dashed spelling that the store keeps. Raises ValueError when it is no UUID."""
    return str(text if isinstance(text, uuid.UUID) else uuid.UUID(text))
