"""The one-file executable: it serves and runs flows in containers where there is no Python at all, and as processes where there is no uv."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.place import DEPLOY
from tests.support.daemon import LiveDaemon
from tests.support.git_server import GitServer
from tests.support.image import IMAGE
from tests.support.prefect_user import PrefectUser

if TYPE_CHECKING:
    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
FLOW = """
from prefect import flow

@flow(log_prints=True)
def hello():
    print("hello from a run of the binary")
"""
WITHOUT_PYTHON = """
rm -rf /usr/bin/python3* /usr/lib/python3* /usr/local/bin/python* /usr/local/lib/python* /usr/local/lib/libpython* /usr/lib/*/libpython*
if command -v python || command -v python3; then echo 'there is still a Python' >&2; exit 1; fi
exec "$@"
"""
WITHOUT_UV = """
rm -rf /usr/local/bin/uv* /usr/bin/uv* /root/.local /usr/lib/python3*/site-packages/uv /usr/local/lib/python3*/*-packages/uv*
if command -v uv; then echo 'there is still a uv' >&2; exit 1; fi
exec "$@"
"""


@pytest.fixture(scope="module")
def binary() -> Path:
    """The executable, made from this checkout."""
    subprocess.run(["make", "--no-print-directory", "binary", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    return ROOT / "dist" / "managedd"


def unpacked() -> set[Path]:
    """Where executables of this kind have unpacked themselves."""
    return set(Path(tempfile.gettempdir()).glob("_MEI*"))


@pytest.mark.timeout(600)
def test_serves_and_runs_a_flow_where_there_is_no_python(
    binary: Path, docker_engine: Provisioned, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    folder = tmp_path / "daemon"
    assert docker_engine.docker_host is not None
    engine = docker_engine.docker_host.removeprefix("unix://")
    program = in_a_container(docker_engine, binary, folder, WITHOUT_PYTHON, "--volume", f"{engine}:{engine}")
    before = unpacked()
    settings = {"docker": {"host_allow": ["*"]}}
    daemon = LiveDaemon(folder, docker_host=docker_engine.docker_host, program=program, settings=settings)
    try:
        daemon.start()
        runs_a_flow(daemon, prefect_venv, tmp_path, daemon.gateway)
        asked = subprocess.run(
            [binary, "status", "--json", "--data-dir", daemon.data_dir], capture_output=True, check=True
        )
        assert json.loads(asked.stdout)["engine"]["driver"] == "docker"
        assert daemon.complaints() == []
    finally:
        daemon.close()
    assert unpacked() <= before, "what was unpacked is gone"


@pytest.mark.timeout(600)
def test_runs_a_flow_as_a_process_where_there_is_a_python_and_no_uv(
    binary: Path, docker_engine: Provisioned, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    folder = tmp_path / "daemon"
    program = in_a_container(docker_engine, binary, folder, WITHOUT_UV)
    settings = {"runs": {"driver": "process"}, "process": {"trusted": True}}
    daemon = LiveDaemon(folder, docker_host=None, settings=settings, program=program)
    try:
        daemon.start()
        runs_a_flow(daemon, prefect_venv, tmp_path, "127.0.0.1")
        assert daemon.api.get("/managed/status")["engine"]["driver"] == "process"
        assert daemon.complaints() == []
    finally:
        daemon.close()


def in_a_container(engine: Provisioned, binary: Path, folder: Path, before: str, *more: str) -> list[str]:
    """The command that runs the executable in a container on this host's network, once `before` has taken away what shall not be there."""
    assert engine.docker_host is not None
    return [
        "docker", "--host", engine.docker_host, "run", "--rm", "--init", "--network", "host",
        *more, "--volume", f"{folder}:{folder}", "--volume", f"{binary}:/managedd:ro",
        "--entrypoint", "sh", IMAGE, "-c", before, "sh", "/managedd",
    ]  # fmt: skip


def runs_a_flow(daemon: LiveDaemon, prefect_venv: Provisioned, folder: Path, host: str) -> None:
    """A flow from a git repository has run, and its output is in its log; `host`: this host's address as runs reach it."""
    (folder / "flow.py").write_text(FLOW)
    with GitServer(folder / "git", host).serving() as git:
        source = git.repository("flows", {"flow.py": folder / "flow.py"})
        user = PrefectUser(prefect_venv, daemon.url, folder / "user")
        user.prefect("work-pool", "create", "managed", "--type", "prefect:managed")
        wanted = {"source": source, "entrypoint": "flow.py:hello", "name": "d", "pool": "managed"}
        user.python(DEPLOY, json.dumps([{**wanted, "job_variables": {}, "options": {}}]))
        [deployment] = daemon.api.post("/deployments/filter")
        run_id = daemon.api.post(f"/deployments/{deployment['id']}/create_flow_run", {})["id"]
        daemon.api.wait(run_id, types={"COMPLETED"}, seconds=180)
        assert "hello from a run of the binary" in daemon.api.text(run_id)
