"""Everything the container, client and browser tests need, made from nothing: a Docker engine, the image, a Prefect client, a browser.

    python -m tests.support.provision [--json]         make it all and leave the engine running
    python -m tests.support.provision --stop           stop the engine that provisioning has started
    python -m tests.support.provision --run COMMAND …  make it all, run the command, stop the engine if nobody else uses it

With CI=true a machine that cannot do it fails; elsewhere the tests that need what is missing are skipped with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tests.support.chromium import ensure_chromium
from tests.support.engine import engine_in_use, ensure_engine, stop_engine
from tests.support.image import ensure_images
from tests.support.prefect_client import ensure_prefect_venv
from tests.support.steps import STATE, CannotProvisionError, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

__all__ = [
    "Provisioned",
    "ensure_engine",
    "ensure_images",
    "ensure_prefect_venv",
    "in_ci",
    "provisioned",
    "stop_engine",
]

# Set for a command under --run, so that the pytest below does not try again what has just failed.
HANDED_DOWN = "PROVISIONED_FOR_TESTS"
EXIT_CODE = STATE / "exit-code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """What there is to test with; a part that is None is missing for one of the reasons."""

    docker_host: str | None = None
    image: str | None = None
    prefect_python: str | None = None
    prefect_cli: str | None = None
    browser: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """All reasons in one text."""
        return "; ".join(self.reasons)


def in_ci() -> bool:
    """True where something missing is a failure and not a reason to skip."""
    return os.environ.get("CI", "").lower() in {"true", "1", "yes"}


@contextlib.contextmanager
def provisioned(
    *, engine: bool = True, client: bool = True, browser: bool = False, keep: bool = False
) -> Iterator[Provisioned]:
    """What was asked for is there until the block ends, or the reasons say why not; the block runs either way."""
    handed_down = _handed_down()
    gone = set(handed_down.reasons) if handed_down else set()
    reasons: list[str] = []
    host = image = venv = chromium = None
    with contextlib.ExitStack() as until_the_end:
        if engine and not (handed_down and handed_down.image is None):
            try:
                host = until_the_end.enter_context(engine_in_use(keep=keep))
                image = ensure_images(host)
            except CannotProvisionError as error:
                reasons.append(f"container tests cannot run: {error}")
        if client and not (handed_down and handed_down.prefect_python is None):
            try:
                venv = ensure_prefect_venv()
            except CannotProvisionError as error:
                reasons.append(f"tests with the Prefect client cannot run: {error}")
        if browser and not (handed_down and handed_down.browser is None):
            try:
                chromium = ensure_chromium()
            except CannotProvisionError as error:
                reasons.append(f"tests in a browser cannot run: {error}")
        yield Provisioned(
            docker_host=host if image else None,
            image=image,
            prefect_python=str(venv / "bin" / "python") if venv else None,
            prefect_cli=str(venv / "bin" / "prefect") if venv else None,
            browser=chromium,
            reasons=(*sorted(gone), *reasons),
        )


def _handed_down() -> Provisioned | None:
    text = os.environ.get(HANDED_DOWN)
    if not text:
        return None
    fields = json.loads(text)
    return Provisioned(**{**fields, "reasons": tuple(fields["reasons"])})


def run_command(command: Sequence[str]) -> int:
    """The command has ended with the returned code, which also lies in a file for callers behind make."""
    EXIT_CODE.unlink(missing_ok=True)
    with provisioned(browser=True) as there:
        _tell(there)
        child = subprocess.Popen(command, env={**os.environ, HANDED_DOWN: json.dumps(asdict(there))})

        def pass_on(number: int, _frame: FrameType | None) -> None:
            child.send_signal(number)

        # The terminal sends its interrupt to the child as well; either way the child decides when it has ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        code = child.wait()
    if code == 0 and there.reasons and in_ci():
        code = 1
    EXIT_CODE.write_text(f"{code}\n")
    return code if code >= 0 else 128 - code


def _tell(there: Provisioned) -> None:
    for reason in there.reasons:
        say(reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code says whether all that was asked for is there, or is the code of the command under --run."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.provision", description="Make what the tests need.")
    parser.add_argument("--json", action="store_true", help="print what there is as JSON")
    parser.add_argument("--stop", action="store_true", help="stop the engine that provisioning has started")
    parser.add_argument(
        "--run", nargs=argparse.REMAINDER, metavar="COMMAND", help="run the command with everything there"
    )
    chosen = parser.parse_args(arguments)
    if chosen.stop:
        say("the engine is stopped" if stop_engine() else "there is no engine that provisioning started")
        return 0
    # A request to end must unwind the blocks above, or a half-made engine would stay behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    if chosen.run:
        return run_command(chosen.run)
    with provisioned(browser=True, keep=True) as there:
        _tell(there)
        if chosen.json:
            print(json.dumps(asdict(there), indent=2))
        else:
            for name, value in asdict(there).items():
                say(f"{name}: {value}")
    return 1 if there.reasons and in_ci() else 0


if __name__ == "__main__":
    sys.exit(main())
