"""The command line: one file per command.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no daemon answers, 4 can't listen on the address now.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from managedd.cli import failures, serving


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: does what the arguments say and exits."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    serve = serving.plainly(given)
    if serve is not None:
        sys.exit(failures.ended(serve))
    from managedd.cli.app import run

    sys.exit(run(given))
