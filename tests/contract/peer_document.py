"""The OpenAPI document that Prefect's own server generates, from the client's virtual environment, kept under .cache."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.prefect_client import REQUIREMENTS
from tests.support.steps import STATE, locked

if TYPE_CHECKING:
    from tests.support.provision import Provisioned

DOCUMENT = STATE / "prefect-openapi.json"
_PROGRAM = """
import json, sys
from prefect.server.api.server import create_api_app
json.dump(create_api_app().openapi(), sys.stdout)
"""


def peer_document(prefect_venv: Provisioned) -> dict[str, Any]:
    """Prefect's document; made once for each set of pinned requirements."""
    with locked(STATE / "prefect-openapi.lock"):
        if DOCUMENT.exists():
            kept: dict[str, Any] = json.loads(DOCUMENT.read_text())
            if kept["requirements"] == list(REQUIREMENTS):
                return dict(kept["document"])
        assert prefect_venv.prefect_python is not None
        done = subprocess.run(
            [prefect_venv.prefect_python, "-c", _PROGRAM],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
            env={"PREFECT_HOME": str(STATE / "prefect-home"), "PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"},
        )
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        DOCUMENT.write_text(json.dumps({"requirements": list(REQUIREMENTS), "document": document}))
        return document
