"""The commands under one name, and what a failure looks like: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from managedd import __version__
from managedd.cli import audit, check_config, demo, doctor, key, logs, openapi, secrets, serve, status, usage, workspace
from managedd.cli.exits import INTERRUPTED, WRONG_USAGE, exit_code
from managedd.errors import ManagedError

EPILOGUE = (
    "Every command reads the same settings: the file that --config or MANAGEDD_CONFIG names (else /etc/managedd/config.toml), then "
    "MANAGEDD_SECTION__KEY variables, then flags. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no daemon answers, "
    "4 can't listen on the address now."
)


def application() -> App:
    """Every command of the console script."""
    app = App(
        name="managedd",
        help="Prefect Managed on your own host.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=f"managedd {__version__}",
    )
    app.command(serve.serve)
    app.command(demo.demo)
    app.command(status.status)
    app.command(logs.logs)
    app.command(usage.usage)
    app.command(workspace.workspace)
    app.command(key.key)
    app.command(audit.audit)
    app.command(secrets.secrets)
    app.command(openapi.openapi)
    app.command(check_config.check_config)
    app.command(doctor.doctor)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: does what the arguments say and exits."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code, after the command that the arguments name has run or its failure was told."""
    app = application()
    try:
        done = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        error.verbose = False
        return _tell(f"{' '.join(str(error).split())} Try `managedd --help`.", WRONG_USAGE)
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
        return _tell(known.message, exit_code(known))
    # Most commands have nothing to say but that they are done.
    return done if isinstance(done, int) else 0


def _tell(message: str, code: int) -> int:
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
