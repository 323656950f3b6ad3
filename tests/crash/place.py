"""What the crash tests share: a daemon over real containers with a stand-in for the engine inside, and what must hold after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from managedd import failpoints
from managedd.orchestration.pool_types import default_template

if TYPE_CHECKING:
    from collections import Counter

    from tests.support.daemon import LiveDaemon
    from tests.support.http import Api

FAST_IMAGE = "managedd-test-crash:latest"
STAND_IN = Path(__file__).with_name("image") / "prefect.py"
OPEN = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")


def build_fast_image(
    docker_host: str, base: str, folder: Path, program: Path = STAND_IN, name: str = FAST_IMAGE
) -> str:
    """The engine has an image like `base` whose `prefect` is the stand-in, or another program."""
    (folder / "prefect").write_bytes(program.read_bytes())
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY prefect /usr/local/bin/prefect\n")
    (folder / "prefect").chmod(0o755)
    # The classic builder is in every engine and sees the local base image.
    done = subprocess.run(
        ["docker", "-H", docker_host, "build", "--quiet", "--force-rm", "--tag", name, str(folder)],
        env={**os.environ, "DOCKER_BUILDKIT": "0"}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return name


@dataclass(kw_only=True)
class Place:
    """A live daemon with one pool of ten slots and one deployment."""

    daemon: LiveDaemon
    deployment_id: str = ""
    pool: str = "managed"
    submitted: list[str] = field(default_factory=list)

    @property
    def api(self) -> Api:
        return self.daemon.api

    def furnish(self, image: str, *, slots: int = 10, **deployment: Any) -> None:
        """The pool, the flow and the deployment are there."""
        kind = "prefect:managed"
        template = default_template(kind)
        self.api.post(
            "/work_pools/", {"name": self.pool, "type": kind, "base_job_template": template, "concurrency_limit": slots}
        )
        flow = self.api.post("/flows/", {"name": "numbers"})
        body = {"name": "prod", "flow_id": flow["id"], "work_pool_name": self.pool, "job_variables": {"image": image}}
        self.deployment_id = self.api.post("/deployments/", {**body, "enforce_parameter_schema": False, **deployment})[
            "id"
        ]

    def submit(
        self, count: int, *, lines: int = 20, pause: float = 0.02, gate: Path | None = None, breaks: bool = False
    ) -> list[str]:
        """So many runs that are due now, submitted at once; in the middle of their lines they wait for the file `gate`. One that `breaks` ends
        without a word."""
        # A real flow refuses parameters that it does not have.
        parameters: dict[str, Any] = {"lines": lines, "pause": pause} | ({} if gate is None else {"gate": str(gate)})
        parameters |= {"breaks": True} if breaks else {}
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}

        def one(_: int) -> str:
            return str(self.api.post(f"/deployments/{self.deployment_id}/create_flow_run", body)["id"])

        with ThreadPoolExecutor(10) as pool:
            made = list(pool.map(one, range(count)))
        self.submitted += made
        return made

    def arm(self, failpoint: str | None) -> None:
        """The next start of the daemon has the failpoint."""
        self.daemon.environment.pop(failpoints.VARIABLE, None)
        if failpoint is not None:
            self.daemon.environment[failpoints.VARIABLE] = failpoint

    def wait_dead(self, seconds: float = 40) -> None:
        """The daemon has killed itself."""
        deadline = time.monotonic() + seconds
        while self.daemon.running:
            assert time.monotonic() < deadline, f"the failpoint was not reached\n{self.daemon.log_tail()}"
            time.sleep(0.02)

    def wait_all(self, runs: list[str], seconds: float = 90) -> None:
        """Every run has ended and nothing of any is open, or the test fails."""
        deadline = time.monotonic() + seconds
        while True:
            left = self.daemon.query(
                "SELECT id FROM flow_runs AS r WHERE id IN (SELECT value FROM json_each(?)) AND (state_type IN (SELECT value FROM json_each(?)) "
                "OR EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST')))",
                _json(runs), _json(OPEN),
            )  # fmt: skip
            if not left:
                return
            assert time.monotonic() < deadline, f"{len(left)} runs have not ended\n{self.daemon.log_tail()}"
            time.sleep(0.1)

    def live_containers(self) -> Counter[str]:
        """How many containers, or families of processes, each flow run has that are not over."""
        return self.daemon.live_runs()

    def check_torn(self) -> None:
        """What must hold right after a crash, with no daemon: no run has two containers."""
        assert all(count == 1 for count in self.live_containers().values())

    def check_whole(self, runs: list[str], *, lines: int = 20) -> None:
        """Each run completed, was executed once, has every line once; nothing is held, nothing is left, both files are sound."""
        for run_id in runs:
            run = self.api.run(run_id)
            assert run["state"]["type"] == "COMPLETED", (run["state"], self.api.text(run_id), self.daemon.log_tail())
            executions = self.daemon.executions(run_id)
            assert [(one["attempt"], one["phase"], one["end_cause"]) for one in executions] == [
                (1, "FINALIZED", "completed")
            ]
            told = [line["message"] for line in self.api.logs(run_id) if line["name"] == "stdout"]
            assert told == [f"line {number}" for number in range(lines)], run_id
        starts = self.daemon.query(
            "SELECT flow_run_id, count(DISTINCT data) AS starts FROM artifacts WHERE flow_run_id IN (SELECT value FROM json_each(?)) "
            "GROUP BY flow_run_id", _json(runs),
        )  # fmt: skip
        assert {row["flow_run_id"]: row["starts"] for row in starts} == dict.fromkeys(runs, 1)
        held = self.daemon.query("SELECT id FROM flow_runs WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING')")
        assert held == []
        self.daemon.wait_no_containers(seconds=15)
        self.check_sound()

    def check_sound(self) -> None:
        """Both files are sound."""
        for database in ("state", "logs"):
            assert self.daemon.query("PRAGMA integrity_check", database=database) == [{"integrity_check": "ok"}]
            assert self.daemon.query("PRAGMA foreign_key_check", database=database) == []


def _json(values: Any) -> str:
    return json.dumps(list(values))
