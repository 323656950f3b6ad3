"""The demo: a daemon of its own, a git repository with a flow, and the real Prefect client that runs it; nothing is left behind.

`story` is what happens, in its order; the other modules are what it takes. Nothing here is part of the daemon.
"""

from __future__ import annotations
