"""Every failure has a name: one root, a few codes, one meaning each.

The api maps a code to an HTTP status in one table (`api/errors.py`); the engine and the command line use the same codes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """What kind of failure this is; the api's table gives each its HTTP status."""

    INVALID = "invalid"
    """The input breaks a rule that the message names (422)."""
    BAD_REQUEST = "bad_request"
    """The input can't be understood at all (400)."""
    UNAUTHORIZED = "unauthorized"
    """No credential, or one that is not known (401)."""
    FORBIDDEN = "forbidden"
    """A known credential that may not do this (403)."""
    NOT_FOUND = "not_found"
    """No such object in this workspace (404)."""
    CONFLICT = "conflict"
    """The object exists already, or its present state forbids the change (409)."""
    CHANGED = "changed"
    """The object is not any more what whoever asks for the change has seen (412)."""
    TOO_LARGE = "too_large"
    """A body, frame or field beyond its bound (413)."""
    LOCKED = "locked"
    """No slot is free now; `retry_after_seconds` says when to ask again (423)."""
    TOO_MANY = "too_many"
    """This caller has too much under way: ask again (429 + Retry-After)."""
    UNAVAILABLE = "unavailable"
    """Starting, stopping, busy or overloaded: ask again (503 + Retry-After)."""
    CONFIG = "config"
    """The configuration is wrong; the message names the key and what is allowed."""
    DRIVER = "driver"
    """The container engine, or the host under it, refused or failed."""
    INTERNAL = "internal"
    """A fault of our own (500); logged in full, shown as nothing."""


class ManagedError(Exception):
    """A failure with a code and a message for the person who caused it.

    `detail` is machine-readable evidence and goes to the client beside the message: never put a secret in it.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        detail: Any = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class CannotListen(ManagedError):
    """The address is taken or not there now; another start may find it free."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message)


def not_found(what: str, which: object) -> ManagedError:
    """The error for a missing object, in one wording."""
    return ManagedError(ErrorCode.NOT_FOUND, f"{what} {str(which)!r} not found")


def invalid(message: str, *, detail: Any = None) -> ManagedError:
    """The error for input that breaks a rule."""
    return ManagedError(ErrorCode.INVALID, message, detail=detail)


def conflict(message: str) -> ManagedError:
    """The error for an object that exists, or a state that forbids the change."""
    return ManagedError(ErrorCode.CONFLICT, message)


def forbidden(message: str) -> ManagedError:
    """The error for a known caller who may not do this."""
    return ManagedError(ErrorCode.FORBIDDEN, message)


def unavailable(message: str, retry_after_seconds: float = 1.0) -> ManagedError:
    """The error for "not now": the client asks again after `retry_after_seconds`."""
    return ManagedError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=retry_after_seconds)
