"""What a failure of a command looks like: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from managedd.cli.exits import INTERRUPTED, exit_code
from managedd.errors import ManagedError


def ended(command: Callable[[], Any]) -> int:
    """The exit code, after the command has run or its failure, if that has a name, was told."""
    try:
        done = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; the interpreter must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ManagedError, BaseExceptionGroup) as error:
        known = _named(error)
        if known is None:
            raise
        return tell(known.message, exit_code(known))
    # Most commands have nothing to say but that they are done.
    return done if isinstance(done, int) else 0


def tell(message: str, code: int) -> int:
    """`code`, once the line is on standard error."""
    print(f"managedd: {message}", file=sys.stderr)
    return code


def _named(error: BaseException) -> ManagedError | None:
    """The failure that has a name: itself, or all that a task group wraps."""
    if isinstance(error, ManagedError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [_named(inner) for inner in error.exceptions]
        if None not in found:
            return found[0]
    return None
