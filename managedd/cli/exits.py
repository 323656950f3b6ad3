"""What a command ends with."""

from __future__ import annotations

from managedd.errors import CannotListen, ErrorCode, ManagedError

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3
CANNOT_LISTEN = 4
INTERRUPTED = 130


class Unreachable(ManagedError):
    """No daemon answers there now."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message)


def exit_code(error: ManagedError) -> int:
    """The process's exit code for a failure that has a name."""
    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, CannotListen):
        return CANNOT_LISTEN
    return WRONG_USAGE if error.code is ErrorCode.CONFIG else FAILED
