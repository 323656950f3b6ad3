"""The commands under one name."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError

from managedd import __version__
from managedd.cli import audit, check_config, demo, doctor, key, logs, openapi, secrets, serve, status, usage, workspace
from managedd.cli.exits import WRONG_USAGE
from managedd.cli.failures import ended, tell

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


def run(arguments: Sequence[str]) -> int:
    """The exit code, after the command that the arguments name has run or its failure was told."""
    app = application()
    try:
        return ended(lambda: app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value"))
    except CycloptsError as error:
        error.verbose = False
        return tell(f"{' '.join(str(error).split())} Try `managedd --help`.", WRONG_USAGE)
