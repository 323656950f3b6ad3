"""Code that not everybody may read: a private repository over HTTPS, and S3, with the credentials in blocks, and seen nowhere else."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.contract.place import POOL
from tests.support.s3 import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(300)]

TOKEN = "ghp_tokenOfAPrivateRepository4711"
KEY, SECRET = "AKIAPRIVATEKEY0815", "secretAccessKeyThatNobodyMaySee99"
SECRETS = (TOKEN, KEY, SECRET)

DEPLOY_GIT = """
import sys
from prefect import flow
from prefect.blocks.system import Secret
from prefect.runner.storage import GitRepository

url, pool, token = sys.argv[1:]
Secret(value=token).save("private-token", overwrite=True)
source = GitRepository(url, credentials={"username": "oauth2", "access_token": Secret.load("private-token")})
flow.from_source(source, entrypoint="tutorial.py:other").deploy("private-script", work_pool_name=pool, parameters={"seconds": 5})
"""

DEPLOY_S3 = """
import sys
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.runner.storage import RemoteStorage

bucket, endpoint, pool, key, secret = sys.argv[1:]
Secret(value=key).save("s3-key", overwrite=True)
Secret(value=secret).save("s3-secret", overwrite=True)
storage = RemoteStorage(
    f"s3://{bucket}/code", key=Secret.load("s3-key"), secret=Secret.load("s3-secret"), client_kwargs={"endpoint_url": endpoint}
)
with get_client(sync_client=True) as client:
    flow_id = client.create_flow_from_name("other")
    print(client.create_deployment(
        flow_id=flow_id, name="from-s3", work_pool_name=pool, entrypoint="tutorial.py:other", pull_steps=[storage.to_pull_step()],
        parameters={"seconds": 5}, job_variables={"pip_packages": ["s3fs"]},
    ))
"""

YAML = """
name: private
pull:
- prefect.deployments.steps.git_clone:
    id: clone
    repository: {url}
    branch: {branch}
    credentials:
      username: x-access-token
      access_token: "{{{{ prefect.blocks.secret.private-token }}}}"
deployments:
- name: {name}
  entrypoint: tutorial.py:other
  work_pool:
    name: {pool}
"""


class ProcessList:
    """Looks at this machine's process list all the time, containers included, for words that must not be there."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="process list", daemon=True)

    def __enter__(self) -> ProcessList:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        own = {str(os.getpid())}
        while not self._stop.wait(0.05):
            self.looks += 1
            for folder in Path("/proc").iterdir():
                if folder.name.isdecimal() and folder.name not in own:
                    try:
                        command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    except OSError:
                        continue
                    if any(secret in part for secret in SECRETS for part in command):
                        self.found.add(" ".join(command))


@pytest.fixture(scope="module")
def s3(place: Place) -> Iterator[str]:
    with s3_server(place.daemon.gateway, place.folder / "s3.log") as url:
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        client.create_bucket(Bucket="code-bucket")
        client.upload_file(str(place.folder / "git" / "flows.work" / "tutorial.py"), "code-bucket", "code/tutorial.py")
        yield url


@pytest.fixture(scope="module")
def deployed(place: Place, s3: str) -> dict[str, str]:
    """The deployments: by script, by prefect.yaml, from S3, and one whose branch is missing."""
    url = place.secure_git.repository(
        "private", {"tutorial.py": place.folder / "git" / "flows.work" / "tutorial.py"}, token=TOKEN
    )
    place.git.tokens.update(place.secure_git.tokens)
    user = place.user
    user.python(DEPLOY_GIT, url, POOL, TOKEN, GIT_SSL_CAINFO=str(place.bundle), NO_PROXY="*")
    made = user.python(DEPLOY_S3, "code-bucket", s3, POOL, KEY, SECRET)
    deployments = {"script": place.api.get("/deployments/name/other/private-script")["id"], "s3": made.out.split()[-1]}
    for name, branch in (("private-yaml", "main"), ("private-missing", "no-such-branch")):
        project = user.folder / name
        project.mkdir()
        (project / "tutorial.py").write_text((place.folder / "git" / "flows.work" / "tutorial.py").read_text())
        (project / "prefect.yaml").write_text(YAML.format(url=url, branch=branch, name=name, pool=POOL))
        user.prefect("--no-prompt", "deploy", "--all", cwd=project)
        deployments[name] = place.api.get(f"/deployments/name/other/{name}")["id"]
    return deployments


@pytest.fixture(scope="module")
def ran(place: Place, deployed: dict[str, str]) -> dict[str, Any]:
    """Each has run; what containers and processes looked like meanwhile."""
    with ProcessList() as processes:
        runs = {name: place.submit(deployment) for name, deployment in deployed.items()}
        inspected: dict[str, Any] = {}
        deadline = time.monotonic() + 200
        waiting = set(runs.values())
        while waiting:
            assert time.monotonic() < deadline, waiting
            for run_id in sorted(waiting):
                for container in place.daemon.containers(flow_run_id=run_id):
                    if text := place.daemon.docker("inspect", container, check=False):
                        inspected[container] = text
                if place.api.run(run_id)["state_type"] in {"COMPLETED", "CRASHED", "FAILED"}:
                    waiting.discard(run_id)
            time.sleep(0.5)
    for run_id in runs.values():
        place.daemon.ended(run_id)
    return {"runs": runs, "inspected": inspected, "processes": processes}


@pytest.mark.parametrize("name", ["script", "private-yaml", "s3"])
def test_private_code_runs(place: Place, ran: dict[str, Any], name: str) -> None:
    run = place.api.wait(ran["runs"][name], types={"COMPLETED"})
    assert "other flow" in place.api.text(run["id"])
    assert len(place.daemon.executions(run["id"])) == 1


def test_without_the_token_the_repository_is_closed(place: Place, ran: dict[str, Any]) -> None:
    assert "private.git" in place.secure_git.clones
    closed = place.user.python(
        "import subprocess, sys; sys.exit(subprocess.run(['git', 'ls-remote', sys.argv[1]]).returncode)",
        f"{place.git.url}/private.git", code=None, GIT_TERMINAL_PROMPT="0",
    )  # fmt: skip
    assert closed.code != 0


def test_missing_branch_is_told_without_the_token(place: Place, ran: dict[str, Any]) -> None:
    run = place.api.wait(ran["runs"]["private-missing"], types={"CRASHED", "FAILED"})
    assert "clone" in place.api.text(run["id"])


def test_secrets_are_nowhere_to_be_seen(place: Place, ran: dict[str, Any]) -> None:
    daemon = place.daemon
    assert len(ran["inspected"]) >= 4
    places = {
        "the containers": "\n".join(ran["inspected"].values()),
        "the daemon's log": daemon.log_path.read_text(),
        "the log lines": json.dumps(daemon.query("SELECT * FROM log_lines", database="logs")),
        "the images": daemon.docker("image", "inspect", *daemon.docker("images", "-q").split()),
    }
    for table in ("flow_runs", "flow_run_states", "task_runs", "task_run_states", "events", "event_related", "deployments", "executions",
                  "artifacts", "variables", "work_pools"):  # fmt: skip
        places[f"the table {table}"] = json.dumps(daemon.query(f"SELECT * FROM {table}"), default=str)
    for where, text in places.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} is in {where}"
    assert ran["processes"].looks > 20
    assert ran["processes"].found == set()
