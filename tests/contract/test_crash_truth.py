"""A run that dies is Crashed within seconds, and its state says why."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.http import HttpError
from tests.support.slow_server import SlowServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = (
    "ticks", "deaf", "engine_kills_itself", "supervisor_dies", "eats_memory", "child_eats_memory", "fills_disk", "forks",
    "steady",
)  # fmt: skip
WITHIN_SECONDS = 5.0
TIME_LIMIT_SECONDS = 20
MISSING_BLOCK = "{{ prefect.blocks.secret.there-is-no-such-block }}"


@pytest.fixture(scope="module")
def nowhere(place: Place) -> Iterator[SlowServer]:
    """A registry and an index that have nothing."""
    with SlowServer(place.daemon.gateway).serving() as server:
        yield server


@pytest.fixture(scope="module")
def local_registry() -> Iterator[SlowServer]:
    with SlowServer("127.0.0.1").serving() as server:
        yield server


@pytest.fixture(scope="module")
def deployed(place: Place) -> dict[str, str]:
    return dict(zip(NAMES, place.deployments(*({"entrypoint": f"trouble.py:{name}"} for name in NAMES)), strict=True))


@pytest.fixture(scope="module")
def bystander(place: Place, deployed: dict[str, str]) -> str:
    """A run that is under way before any of the others."""
    run_id = place.submit(deployed["steady"])
    place.api.wait(run_id, types={"RUNNING"})
    return run_id


@pytest.fixture(scope="module")
def doomed(
    place: Place, deployed: dict[str, str], bystander: str, nowhere: SlowServer, local_registry: SlowServer
) -> dict[str, str]:
    """All those that need no help to die."""
    ticks = deployed["ticks"]
    return {
        "image": place.submit(ticks, job_variables={"image": f"{local_registry.address}/no/such-image:1"}),
        "variables": place.submit(ticks, job_variables={"env": {"TOKEN": MISSING_BLOCK}}),
        "packages": place.submit(
            ticks, job_variables={"pip_packages": [f"thing @ http://{nowhere.address}/thing-1.0.zip"]}
        ),
        "memory": place.submit(deployed["eats_memory"], job_variables={"memory_limit": "300Mi"}),
        "supervisor": place.submit(deployed["supervisor_dies"]),
        "engine": place.submit(deployed["engine_kills_itself"]),
        "disk": place.submit(deployed["fills_disk"]),
        "pids": place.submit(deployed["forks"]),
        "child": place.submit(deployed["child_eats_memory"], job_variables={"memory_limit": "400Mi"}),
        "time": place.submit(ticks, job_variables={"timeout": TIME_LIMIT_SECONDS}),
        "deaf": place.submit(deployed["deaf"], job_variables={"timeout": TIME_LIMIT_SECONDS}),
        "early": place.submit(ticks, job_variables={"timeout": 1}),
        "eater": place.submit(
            ticks,
            job_variables={
                "pip_packages": [f"git+{eater(place)}"],
                "memory_limit": "300Mi",
                "env": {"UV_NO_BUILD_ISOLATION": "1"},
            },
        ),
    }


def eater(place: Place) -> str:
    """The repository of a package whose build wants all the memory there is."""
    return place.git.repository("eater", {"setup.py": "kept = []\nwhile True: kept.append(bytearray(16 << 20))\n"})


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _crashed(place: Place, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    place.api.wait(run_id, types={"CRASHED"}, seconds=150)
    [execution] = place.daemon.ended(run_id)
    # Read again: a crash that the client could not explain is explained by how its container ended.
    return place.api.run(run_id), execution


def test_image_that_is_not_there(place: Place, doomed: dict[str, str], local_registry: SlowServer) -> None:
    run, execution = _crashed(place, doomed["image"])
    assert execution["end_cause"] == "image"
    assert f"{local_registry.address}/no/such-image:1" in run["state"]["message"]
    assert _seconds(run["state"]["timestamp"]) - execution["claimed_at"] / 1e6 < WITHIN_SECONDS
    assert run["state"]["message"] in place.api.text(run["id"])


def test_job_variable_that_cannot_be_resolved(place: Place, doomed: dict[str, str]) -> None:
    run, execution = _crashed(place, doomed["variables"])
    assert execution["end_cause"] == "spec"
    assert "there-is-no-such-block" in run["state"]["message"]
    assert run["state"]["message"] in place.api.text(run["id"])


@pytest.mark.parametrize("variables", [{"memory_limit": "lots"}, {"pip_packages": "numpy"}, {"timeout": 0}])
def test_job_variable_that_is_refused(place: Place, deployed: dict[str, str], variables: dict[str, Any]) -> None:
    with pytest.raises(HttpError) as refused:
        place.submit(deployed["ticks"], job_variables=variables)
    assert refused.value.status == 422
    assert next(iter(variables)) in refused.value.body


def test_package_that_is_not_there(place: Place, doomed: dict[str, str], nowhere: SlowServer) -> None:
    run, execution = _crashed(place, doomed["packages"])
    assert execution["end_cause"] == "packages"
    assert "pip_packages" in run["state"]["message"]
    assert "404" in run["state"]["message"]
    assert "Installing thing" in place.api.text(run["id"])
    assert execution["exited_at"] is not None
    assert _seconds(run["state"]["timestamp"]) - execution["exited_at"] / 1e6 < WITHIN_SECONDS


def test_out_of_memory(place: Place, doomed: dict[str, str]) -> None:
    run, execution = _crashed(place, doomed["memory"])
    assert execution["end_cause"] == "memory"
    assert "300.0 MiB" in run["state"]["message"]
    assert "memory_limit" in run["state"]["message"]
    assert "Out of memory in the flow" in place.api.text(run["id"])
    assert "eating" in place.api.text(run["id"])


def test_out_of_memory_while_installing(place: Place, doomed: dict[str, str]) -> None:
    run, execution = _crashed(place, doomed["eater"])
    assert (execution["end_cause"], execution["oom_killed"]) == ("memory", 1)
    assert run["state"]["message"].startswith("Out of memory while installing packages: the memory limit is 300.0 MiB")
    assert "Installing git+" in place.api.text(run["id"])


def test_a_child_that_runs_out_of_memory_is_a_warning(place: Place, doomed: dict[str, str]) -> None:
    place.api.wait(doomed["child"], types={"COMPLETED"}, seconds=150)
    [execution] = place.daemon.ended(doomed["child"])
    assert (execution["end_cause"], execution["oom_killed"]) == ("completed", 1)
    text = place.api.text(doomed["child"])
    assert "the child ended with -9" in text
    assert "killed for want of memory, and the run went on: the memory limit is 400.0 MiB" in text


def test_a_full_disk_ends_its_own_run_only(place: Place, doomed: dict[str, str]) -> None:
    run, execution = _crashed(place, doomed["disk"])
    assert execution["end_cause"] == "disk"
    assert run["state"]["message"].startswith("Disk limit reached: the run has written ")
    assert run["state"]["message"].endswith("its limit is 300.0 MiB.")
    assert run["state"]["message"] in place.api.text(run["id"])


def test_a_fork_bomb_ends_its_own_run_only(place: Place, doomed: dict[str, str]) -> None:
    run, execution = _crashed(place, doomed["pids"])
    assert execution["end_cause"] == "pids"
    assert run["state"]["message"].startswith("Process limit reached: the run had ")
    assert run["state"]["message"].endswith("its limit is 256.")


@pytest.mark.parametrize(("which", "limit"), [("time", TIME_LIMIT_SECONDS), ("deaf", TIME_LIMIT_SECONDS), ("early", 1)])
def test_the_time_limit(place: Place, doomed: dict[str, str], which: str, limit: int) -> None:
    """In the flow, of one that hears nothing, and before the flow has begun."""
    run, execution = _crashed(place, doomed[which])
    assert (execution["end_cause"], execution["stop_reason"]) == ("time", "time")
    # On a host that is busy, twenty seconds may be over before the flow begins.
    where = "in the flow" if run["run_count"] else "before the flow began"
    assert run["state"]["message"].startswith(f"Time limit reached {where}: the run was stopped after ")
    assert f"its limit is {limit}.0 s, installation included. Raise the timeout" in run["state"]["message"]
    assert run["state"]["message"] in place.api.text(run["id"])
    assert _seconds(run["state"]["timestamp"]) - execution["started_at"] / 1e6 < limit + WITHIN_SECONDS


@pytest.mark.parametrize(
    ("which", "cause"), [("memory", "memory"), ("time", "time"), ("disk", "disk"), ("pids", "pids")]
)
def test_the_cause_is_there_for_programs(place: Place, doomed: dict[str, str], which: str, cause: str) -> None:
    """In the event of the crash; where the run's own client told of that first, in the event that explains it."""
    _, execution = _crashed(place, doomed[which])
    names = ["prefect.flow-run.Crashed", "managedd.flow-run.explained"]
    wanted = {"event": {"name": names}, "resource": {"id": [f"prefect.flow-run.{doomed[which]}"]}}
    found = place.api.post("/events/filter", {"filter": wanted})["events"]
    assert [event["event"] for event in found].count("prefect.flow-run.Crashed") == 1
    [told] = [event for event in found if "managedd" in event["payload"]]
    facts = told["payload"]["managedd"]
    assert (facts["cause"], facts["execution_id"]) == (cause, execution["id"])
    assert told["resource"]["managedd.end-cause"] == cause
    assert facts["limit"] > 0
    assert json.loads(execution["evidence"])["end"] == facts


def test_client_is_killed_in_its_container(place: Place, doomed: dict[str, str]) -> None:
    run, execution = _crashed(place, doomed["supervisor"])
    assert execution["end_cause"] == "engine_exit"
    assert "137" in run["state"]["message"]
    assert _seconds(run["state"]["timestamp"]) - _last_words(place, run["id"], "last words") < 1 + WITHIN_SECONDS


def test_engine_is_killed_and_the_client_tells(place: Place, doomed: dict[str, str]) -> None:
    run, _ = _crashed(place, doomed["engine"])
    assert run["state"]["message"]
    assert "killing the engine" in place.api.text(run["id"])


def test_the_rest_of_the_hosts_runs_are_untouched(place: Place, doomed: dict[str, str], bystander: str) -> None:
    """Memory, time, disk and processes of others ran out beside it; it has lost nothing, and ends by itself."""
    dead = [execution for run_id in doomed.values() for execution in place.daemon.ended(run_id, seconds=150)]
    assert {"memory", "time", "disk", "pids"} <= {execution["end_cause"] for execution in dead}
    assert place.api.run(bystander)["state"]["type"] == "RUNNING"
    [container] = place.daemon.containers(flow_run_id=bystander)
    place.daemon.docker("exec", container, "touch", "/tmp/enough")
    place.api.wait(bystander, types={"COMPLETED"})
    [execution] = place.daemon.ended(bystander)
    assert (execution["attempt"], execution["end_cause"], execution["oom_killed"]) == (1, "completed", 0)
    assert all(
        execution["started_at"] < one["claimed_at"] and one["exited_at"] < execution["exited_at"] for one in dead
    )
    beats = [line["message"] for line in place.api.logs(bystander) if line["message"].startswith("beat ")]
    assert beats == [f"beat {number}" for number in range(len(beats))]


def _last_words(place: Place, run_id: str, words: str) -> float:
    [line] = [line["message"] for line in place.api.logs(run_id) if line["message"].startswith(words)]
    return float(line.rpartition(" ")[2])


def test_container_is_killed_or_removed_from_outside(place: Place, deployed: dict[str, str]) -> None:
    runs = {command: place.submit(deployed["ticks"]) for command in ("kill", "rm -f")}
    runs["timeout"] = place.submit(deployed["ticks"], job_variables={"timeout": 25})
    expected = {"kill": ("engine_exit", "SIGKILL"), "rm -f": ("lost", "is gone")}
    for command, (cause, words) in expected.items():
        place.api.wait(runs[command], types={"RUNNING"})
        [container] = place.daemon.containers(flow_run_id=runs[command])
        while "ticking" not in place.api.text(runs[command]):
            time.sleep(0.3)
        began = time.time()
        place.daemon.docker(*command.split(), container)
        run, execution = _crashed(place, runs[command])
        assert _seconds(run["state"]["timestamp"]) - began < WITHIN_SECONDS
        assert execution["end_cause"] == cause
        assert words in run["state"]["message"]
        text = place.api.text(run["id"])
        assert "ticking" in text
        assert run["state"]["message"] in text

    run, execution = _crashed(place, runs["timeout"])
    assert execution["end_cause"] == "time"
    assert "its limit is 25.0 s" in run["state"]["message"]
    assert run["state"]["message"] in place.api.text(run["id"])
    assert execution["exited_at"] - execution["started_at"] < (25 + WITHIN_SECONDS + 3) * 1e6
