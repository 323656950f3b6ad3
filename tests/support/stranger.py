"""schemathesis, which makes requests of its own from our OpenAPI document: in a virtual environment of its own, so that its pytest plugin is in nobody's tests."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.prefect_client import ensure_prefect_venv
from tests.support.steps import STATE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REQUIREMENTS: Final = ("schemathesis==4.32.5",)
FOLDER: Final = STATE / "schemathesis-venv"
_CASES: Final = re.compile(r"([\d,]+) generated(?:, ([\d,]+) passed)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a run of it ended."""

    cases: int
    """Requests that it says it has made."""
    passed: int
    """Those whose answer was no fault of the daemon's."""
    text: str

    @property
    def is_fine(self) -> bool:
        """Whether it has made requests and every answer was as it should be. It fails at times to make one: that is its own fault."""
        return 0 < self.cases == self.passed


def ensure_schemathesis() -> Path:
    """Its command. Raises CannotProvisionError."""
    return ensure_prefect_venv(FOLDER, REQUIREMENTS) / "bin" / "schemathesis"


def run(
    url: str, headers: Mapping[str, str], *, folder: Path, examples: int, seed: int, workers: int = 1, timeout: float
) -> Told:
    """So many examples of each operation were tried. It asks for nothing but an answer below 500: what ours mean is for other tests."""
    command = [
        str(ensure_schemathesis()), "run", f"{url}/openapi.json", "--url", url,
        "--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", str(examples), "--seed", str(seed),
        "--workers", str(workers), "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", "--no-color",
        "--request-timeout", "60",
        *(part for name, value in headers.items() for part in ("--header", f"{name}: {value}")),
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("SCHEMATHESIS_")}
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False, timeout=timeout)
    found = _CASES.search(done.stdout)
    return Told(
        cases=_number(found[1] if found else None),
        passed=_number(found[2] if found else None),
        text=(done.stdout + done.stderr)[-20_000:],
    )


def _number(text: str | None) -> int:
    return int((text or "0").replace(",", ""))
