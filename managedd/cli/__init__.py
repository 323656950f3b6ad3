"""The command line: one file per command.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no daemon answers, 4 can't listen on the address now.
"""

from __future__ import annotations

from managedd.cli.app import main

__all__ = ["main"]
