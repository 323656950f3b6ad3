"""What is measured with runs: from the request to Running, in managedd, in the peer, and by `docker run` alone."""

from __future__ import annotations

import subprocess
import time
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.bench.figures import Figure, Reading, percentile
from tests.bench.measures import MEGABYTE
from tests.bench.systems import ManagedDaemon, Peer, resident_bytes
from tests.support.git_server import GitServer
from tests.support.http import Api, HttpError
from tests.support.prefect_user import PrefectUser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.bench.measures import Pace
    from tests.support.provision import Provisioned

POOL = "bench"
AUTH = "bench:bench"
FLOW = {"hello.py": "from prefect import flow\n\n\n@flow\ndef hello() -> None:\n    pass\n"}
RUN_SECONDS = 120.0
START_REQUESTED = "execution.start_requested"
MILLISECONDS = 1000.0
BUSY_TRIES, BUSY_SECONDS = 60, 0.5


class PatientApi(Api):
    """Asks again where a server says that it is busy, as the real client does."""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """As `Api.call`."""
        for _ in range(BUSY_TRIES):
            try:
                return super().call(method, path, body)
            except HttpError as error:
                if error.status != 503:
                    raise
            time.sleep(BUSY_SECONDS)
        return super().call(method, path, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlace:
    """Both systems, the flow's repository and what starts containers."""

    managedd: ManagedDaemon
    peer: Peer
    there: Provisioned
    kind: str
    folder: Path

    @property
    def api(self) -> Api:
        """managedd's API."""
        return PatientApi(self.managedd.address, headers=self.managedd.headers)


@dataclass(slots=True, kw_only=True)
class _Seconds:
    """What was seen of each run."""

    managedd: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    dispatch: list[float] = field(default_factory=list)


def bridge_gateway(docker_host: str) -> str:
    """This host's address on the engine's own bridge: reached by every container, and by nobody outside this host."""
    asked = ["docker", "-H", docker_host, "network", "inspect", "bridge", "--format", "{{ (index .IPAM.Config 0).Gateway }}"]  # fmt: skip
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def daemon_for_runs(folder: Path, there: Provisioned, kind: str) -> ManagedDaemon:
    """A daemon whose API `docker run` reaches too, and whose log tells when a container's start is requested."""
    settings: dict[str, dict[str, Any]] = {"log": {"level": "debug"}, "runs": {"driver": kind, "listen_port": 0}}
    if kind == "docker":
        assert there.docker_host is not None
        settings["server"] = {"host": bridge_gateway(there.docker_host), "auth_string": AUTH}
        # The repository is a server of this host.
        settings["docker"] = {"host_allow": ["*"]}
    else:
        settings["process"] = {"trusted": True}
    daemon = ManagedDaemon(folder, docker_host=there.docker_host, settings=settings)
    if kind == "docker":
        daemon.headers["Authorization"] = f"Basic {b64encode(AUTH.encode()).decode()}"
    return daemon


def runs(place: RunPlace, pace: Pace) -> list[Figure]:
    """Runs one after the other: managedd's and the engine's in turn, then the peer's."""
    host = place.managedd.gateway if place.kind == "docker" else "127.0.0.1"
    folder = place.folder / "git"
    folder.mkdir()
    with GitServer(folder, host).serving() as git:
        source = git.repository("flows", FLOW)
        user = PrefectUser(place.there, place.managedd.address, place.folder / "user", PREFECT_API_AUTH_STRING=AUTH)
        user.prefect("work-pool", "create", POOL, "--type", "prefect:managed")
        place.peer.start_worker(POOL, place.kind)
        seen = _Seconds()
        ours = _deployment(place.api, source, POOL, {})
        loose = _deployment(place.api, source, None, {})
        for number in _while_there_is_time(pace.runs + 1, pace.runs_seconds):
            submitted, run = _submit(place.api, ours)
            running = _until_ended(place.api, run)
            if place.kind == "docker":
                alone = _alone(place, loose)
            if number == 0:
                continue  # what the engine and the disk learn from the first is not measured
            seen.managedd.append(running - submitted)
            seen.dispatch.append(_start_requested(place.managedd, run["id"]) - _seconds(run["created"]))
            if place.kind == "docker":
                seen.alone.append(alone)
            place.managedd.ended(run["id"])
        job = {
            "image": place.there.image,
            "image_pull_policy": "IfNotPresent",
            "network_mode": "host",
            "auto_remove": True,
        }
        api = PatientApi(place.peer.address)
        theirs = _deployment(api, source, POOL, job if place.kind == "docker" else {})
        for number in _while_there_is_time(pace.peer_runs + 1, pace.runs_seconds):
            submitted, run = _submit(api, theirs)
            running = _until_ended(api, run)
            if number:
                seen.peer.append(running - submitted)
    both = resident_bytes(place.peer.session) + resident_bytes(place.peer.worker_session)
    return [*_figures(place.kind, seen), _whole_memory(resident_bytes(place.managedd.session), both)]


def _while_there_is_time(count: int, seconds: float) -> Iterator[int]:
    """Up to `count` numbers, the last of them begun within so long; two at least."""
    until = time.monotonic() + seconds
    for number in range(count):
        if number >= 2 and time.monotonic() > until:
            return
        yield number


def _figures(kind: str, seen: _Seconds) -> list[Figure]:
    title = f"submit → Running ({kind})"
    figures = [
        Figure(
            key=f"runs.running.p{percent}", title=f"{title}, p{percent}", unit="s", better="lower",
            managedd=_reading(seen.managedd, percent), peer=_reading(seen.peer, percent),
        )
        for percent in (50, 95)
    ]  # fmt: skip
    figures += [
        Figure(
            key=f"runs.dispatch.p{percent}", title=f"  of it: commit → start requested, p{percent}", unit="ms", better="lower",
            managedd=_reading([one * MILLISECONDS for one in seen.dispatch], percent),
        )
        for percent in (50, 95)
    ]  # fmt: skip
    if seen.alone:
        figures += [
            Figure(
                key="runs.alone.p50", title="  `docker run` of the same alone, p50", unit="s", better="lower",
                managedd=_reading(seen.alone, 50),
            ),
            Figure(
                key="runs.cold", title="  submit → Running / `docker run` alone", unit="×", better="lower",
                managedd=Reading(value=percentile(seen.managedd, 50) / percentile(seen.alone, 50), n=len(seen.alone)),
            ),
        ]  # fmt: skip
    return figures


def _whole_memory(ours: int, theirs: int) -> Figure:
    return Figure(
        key="memory.whole", title="resident memory, with what runs flows", unit="MB", better="lower",
        managedd=Reading(value=ours / MEGABYTE, n=1), peer=Reading(value=theirs / MEGABYTE, n=1),
    )  # fmt: skip


def _reading(values: Sequence[float], percent: float) -> Reading | None:
    return Reading(value=percentile(values, percent), n=len(values)) if values else None


def _deployment(api: Api, source: str, pool: str | None, job_variables: dict[str, Any]) -> str:
    """The id of a deployment of the flow; without a pool nobody runs it."""
    flow = api.post("/flows/", {"name": "hello"})
    body = {
        "name": POOL if pool else "alone", "flow_id": flow["id"], "entrypoint": "hello.py:hello", "work_pool_name": pool,
        "pull_steps": [{"prefect.deployments.steps.git_clone": {"repository": source}}], "job_variables": job_variables,
    }  # fmt: skip
    return str(api.post("/deployments/", body)["id"])


def _submit(api: Api, deployment_id: str) -> tuple[float, dict[str, Any]]:
    """When it was asked for, and the run."""
    submitted = time.time()
    run = api.post(f"/deployments/{deployment_id}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    return submitted, dict(run)


def _until_ended(api: Api, run: dict[str, Any]) -> float:
    """When the run was Running; it has completed."""
    api.wait(run["id"], types={"COMPLETED"}, seconds=RUN_SECONDS)
    states = api.get(f"/flow_run_states/?flow_run_id={run['id']}")
    return next(_seconds(state["timestamp"]) for state in states if state["type"] == "RUNNING")


def _alone(place: RunPlace, deployment_id: str) -> float:
    """Seconds until Running when the container is started by `docker run` as managedd would: same image, command, limits and network."""
    network = place.managedd.docker(
        "network", "ls", "-q", "--filter", f"label=managedd.instance={place.managedd.instance_id}"
    )
    assert place.there.docker_host is not None
    assert place.there.image is not None
    _, run = _submit(place.api, deployment_id)
    command = [
        "docker", "-H", place.there.docker_host, "run", "--rm", "--init", "--network", network.strip(),
        "--memory", "2g", "--memory-swap", "2g", "--cpus", "1", "--pids-limit", "1024", "--security-opt", "no-new-privileges",
        "--env", f"PREFECT_API_URL={place.managedd.address}", "--env", f"PREFECT_API_AUTH_STRING={AUTH}",
        "--env", f"PREFECT__FLOW_RUN_ID={run['id']}", "--env", "TINI_SUBREAPER=1", "--env", "DO_NOT_TRACK=1", "--env", "PYTHONUNBUFFERED=1",
        place.there.image, "prefect", "flow-run", "execute",
    ]  # fmt: skip
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)
    if done.returncode:
        raise AssertionError(f"`docker run` ended with {done.returncode}: {done.stderr[-2000:]}")
    return _until_ended(place.api, run) - began


def _start_requested(daemon: ManagedDaemon, run_id: str) -> float:
    """When the driver was asked to start the run's container."""
    found = [event["timestamp"] for event in daemon.events(event=START_REQUESTED) if event.get("flow_run_id") == run_id]
    if not found:
        raise AssertionError(f"the daemon's log has no {START_REQUESTED} of run {run_id}")
    return _seconds(found[0])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
