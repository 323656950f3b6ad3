"""Failpoints: places where a test may have the daemon killed, to see that a restart heals it.

Nothing is armed unless the process was started with `_MANAGEDD_FAILPOINT=name` or `name:n` (the n-th time it is reached). That is no
setting: the name begins with an underscore, so that it is outside of what `config` reads and documents.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Final

VARIABLE: Final = "_MANAGEDD_FAILPOINT"
NAMES: Final = frozenset(
    {
        "claim.uncommitted",
        "claim.committed",
        "create.done",
        "created.committed",
        "start.done",
        "exit.seen",
        "settle.uncommitted",
        "settle.committed",
        "remove.done",
        "logs.uncommitted",
        "logs.committed",
    }
)
"""Those of a run's life, in its order."""
OF_SECRETS: Final = frozenset({"secrets.begun", "secrets.step", "secrets.renewed", "secrets.sealed"})
"""Those of keys that change, and of what was stored in clear."""

OF_WORKSPACES: Final = frozenset({"workspace.step", "workspace.rows_gone"})
"""Those of a workspace that was deleted."""


class _Armed:
    """One failpoint, and how often it is still passed by."""

    def __init__(self, wanted: str) -> None:
        name, _, number = wanted.partition(":")
        if name not in NAMES | OF_SECRETS | OF_WORKSPACES:
            raise ValueError(f"{VARIABLE}: no failpoint {name!r}")
        self._name = name
        self._last = int(number or 1)
        self._count = itertools.count(1)

    def reach(self, name: str) -> None:
        if name == self._name and next(self._count) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


_ARMED: Final = _Armed(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def reach(name: str) -> None:
    """Nothing has happened, unless `name` is armed: then this process was killed here."""
    if _ARMED is not None:
        _ARMED.reach(name)
