"""Prefect's command line, command by command, against a live daemon."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.place import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.place import Place
    from tests.support.prefect_user import PrefectUser

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(300)]

TEMPLATE = {
    "job_configuration": {"image": "{{ image }}", "env": "{{ env }}"},
    "variables": {
        "type": "object",
        "properties": {
            "image": {"type": "string", "default": "prefecthq/prefect:3-latest"},
            "env": {"type": "object", "default": {"FROM_TEMPLATE": "yes"}},
        },
    },
}


@pytest.fixture(scope="module")
def user(place: Place) -> Iterator[PrefectUser]:
    """A user whose commands start without importing the client anew: there are more than a hundred here."""
    with place.user.warmed() as warmed:
        yield warmed


@pytest.fixture(scope="module")
def template(place: Place) -> Path:
    path = place.user.folder / "template.json"
    path.write_text(json.dumps(TEMPLATE))
    return path


# --- work pools ------------------------------------------------------------------------------------------------------------


def test_work_pools_are_made(place: Place, user: PrefectUser, template: Path) -> None:
    api = place.api
    plain, paused, process, docker, kubernetes = user.all(
        ("work-pool", "create", "cli-plain", "--type", "prefect:managed"),
        (
            "work-pool",
            "create",
            "cli-paused",
            "--type",
            "prefect:managed",
            "--paused",
            "--base-job-template",
            str(template),
        ),
        ("work-pool", "create", "cli-process", "--type", "process"),
        ("work-pool", "create", "cli-docker", "--type", "docker"),
        ("work-pool", "create", "cli-kubernetes", "--type", "kubernetes"),
    )
    for done, name in (
        (plain, "cli-plain"),
        (paused, "cli-paused"),
        (docker, "cli-docker"),
        (kubernetes, "cli-kubernetes"),
    ):
        assert f"Created work pool '{name}'" in done.text
    assert "start a worker" not in plain.text
    assert "start a worker" in process.text
    pool = api.get("/work_pools/cli-plain")
    assert (pool["type"], pool["status"], pool["is_paused"]) == ("prefect:managed", "READY", False)
    assert {"image", "env", "pip_packages", "timeout", "memory_limit", "cpu_limit"} <= set(
        pool["base_job_template"]["variables"]["properties"]
    )
    other = api.get("/work_pools/cli-paused")
    assert other["is_paused"]
    assert other["base_job_template"] == TEMPLATE

    again = user.prefect("work-pool", "create", "cli-plain", "--type", "prefect:managed", code=1)
    assert "already exists" in again.text
    over = user.prefect(
        "work-pool",
        "create",
        "cli-plain",
        "--type",
        "prefect:managed",
        "--overwrite",
        "--base-job-template",
        str(template),
    )
    assert "Updated work pool 'cli-plain'" in over.text
    assert api.get("/work_pools/cli-plain")["base_job_template"] == TEMPLATE
    assert api.get("/work_pools/cli-plain")["id"] == pool["id"]


def test_types_of_work_pools_that_are_not_offered(place: Place, user: PrefectUser) -> None:
    for arguments, words in (
        (("create", "cli-no", "--type", "nonsense"), "Unknown work pool type 'nonsense'"),
        (("create", "cli-no", "--type", "ecs:push"), "Unknown work pool type 'ecs:push'"),
        (
            ("create", "cli-unprovisioned", "--type", "prefect:managed", "--provision-infra"),
            "Automatic infrastructure provisioning is not supported for",
        ),
        (("provision-infrastructure", POOL), "is not a push pool type"),
        (("get-default-base-job-template", "--type", "nonsense"), "Unknown work pool type 'nonsense'"),
        (("inspect", "cli-no"), "not found"),
        (("delete", "cli-no"), "not exist"),
    ):
        done = user.prefect("work-pool", *arguments, code=None)
        assert words.lower() in done.text.lower(), done
        assert "Traceback" not in done.text


def test_work_pools_are_looked_at(place: Place, user: PrefectUser) -> None:
    listed, shown, json_shown, default, preview = user.all(
        ("work-pool", "ls"),
        ("work-pool", "inspect", POOL),
        ("work-pool", "inspect", POOL, "-o", "json"),
        ("work-pool", "get-default-base-job-template", "--type", "prefect:managed"),
        ("work-pool", "preview", POOL, "--hours", "2"),
    )
    assert POOL in listed.text
    assert "prefect:managed" in listed.text
    assert "prefect:managed" in shown.text
    pool = json.loads(json_shown.out)
    assert (pool["name"], pool["status"], pool["concurrency_limit"]) == (POOL, "READY", None)
    assert pool["default_queue_id"]
    properties = json.loads(default.out)["variables"]["properties"]
    assert "default" not in properties["image"], "a default here would hide runs.image"
    assert preview.code == 0


def test_work_pools_are_changed_and_deleted(place: Place, user: PrefectUser, template: Path) -> None:
    api = place.api

    def pool() -> dict[str, Any]:
        return dict(api.get("/work_pools/cli-changed"))

    user.prefect("work-pool", "create", "cli-changed", "--type", "prefect:managed")
    before = pool()
    user.prefect(
        "work-pool", "update", "cli-changed", "--description", "told", "--concurrency-limit", "4",
        "--base-job-template", str(template),
    )  # fmt: skip
    assert (pool()["description"], pool()["concurrency_limit"], pool()["base_job_template"]) == ("told", 4, TEMPLATE)
    user.prefect("work-pool", "pause", "cli-changed")
    assert (pool()["is_paused"], pool()["status"]) == (True, "PAUSED")
    user.prefect("work-pool", "resume", "cli-changed")
    assert (pool()["is_paused"], pool()["status"]) == (False, "READY")
    user.prefect("work-pool", "set-concurrency-limit", "cli-changed", "7")
    assert pool()["concurrency_limit"] == 7
    user.prefect("work-pool", "clear-concurrency-limit", "cli-changed")
    assert pool()["concurrency_limit"] is None
    assert pool()["id"] == before["id"]
    done = user.prefect("work-pool", "delete", "cli-changed")
    assert "Deleted work pool 'cli-changed'" in done.text
    assert "cli-changed" not in [one["name"] for one in api.post("/work_pools/filter")]


def test_work_queues(place: Place, user: PrefectUser) -> None:
    api = place.api
    made = user.prefect("work-queue", "create", "cli-queue", "--pool", POOL, "--limit", "3", "--priority", "2")
    assert "cli-queue" in made.text
    listed, shown, paused = user.all(
        ("work-queue", "ls", "--pool", POOL),
        ("work-queue", "inspect", "cli-queue", "--pool", POOL),
        ("work-queue", "pause", "cli-queue", "--pool", POOL),
    )
    assert "cli-queue" in listed.text
    assert "cli-queue" in shown.text
    assert paused.code == 0
    assert api.get(f"/work_pools/{POOL}/queues/cli-queue")["is_paused"]
    user.all(
        ("work-queue", "resume", "cli-queue", "--pool", POOL),
        ("work-queue", "set-concurrency-limit", "cli-queue", "5", "--pool", POOL),
        ("work-queue", "preview", "cli-queue", "--pool", POOL),
    )
    queue = api.get(f"/work_pools/{POOL}/queues/cli-queue")
    assert (queue["is_paused"], queue["concurrency_limit"]) == (False, 5)
    user.prefect("work-queue", "delete", "cli-queue", "--pool", POOL)
    assert "cli-queue" not in [one["name"] for one in api.post(f"/work_pools/{POOL}/queues/filter")]


def test_worker_is_not_needed_by_a_managed_pool(place: Place, user: PrefectUser) -> None:
    done = user.prefect("worker", "start", "--pool", POOL, code=None)
    assert "Workers are not required" in done.text


@pytest.mark.timeout(240)
def test_worker_serves_a_hybrid_pool(place: Place, user: PrefectUser) -> None:
    api = place.api
    user.prefect("work-pool", "create", "cli-hybrid", "--type", "process")
    deployment = place.deployment("tutorial.py:hello", "hybrid", pool="cli-hybrid")
    run_id = place.submit(deployment, {"name": "worker"})
    done = user.prefect(
        "worker", "start", "--pool", "cli-hybrid", "--type", "process", "--name", "my-worker", "--run-once", timeout=120
    )
    assert "my-worker" in done.text
    run = api.wait(run_id, types={"COMPLETED"}, seconds=30)
    assert run["work_pool_name"] == "cli-hybrid"
    assert place.daemon.executions(run_id) == []
    assert "Hello, worker!" in api.text(run_id)
    workers = api.post("/work_pools/cli-hybrid/workers/filter")
    assert [one["name"] for one in workers] == ["my-worker"]


# --- deployments and their runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(place: Place) -> dict[str, str]:
    """The runs that the commands below look at: one that completed, one that failed."""
    hello, fails = place.deployments(
        {"entrypoint": "tutorial.py:hello", "name": "cli"}, {"entrypoint": "tutorial.py:fails_first"}
    )
    ids = {
        "hello": place.submit(hello, {"times": 30}, name="cli-hello"),
        "fails": place.submit(fails, name="cli-fails"),
    }
    place.api.wait(ids["hello"], types={"COMPLETED"})
    place.api.wait(ids["fails"], types={"FAILED"})
    return ids


def test_deployments_are_looked_at(place: Place, user: PrefectUser, ran: dict[str, str]) -> None:
    listed, shown, flows = user.all(
        ("deployment", "ls"), ("deployment", "inspect", "hello/cli", "-o", "json"), ("flow", "ls")
    )
    assert "hello/cli" in listed.text
    deployment = json.loads(shown.out)
    assert (deployment["name"], deployment["work_pool_name"], deployment["work_queue_name"]) == ("cli", POOL, "default")
    assert deployment["entrypoint"] == "tutorial.py:hello"
    assert "fails-first" in flows.text


def test_deployment_run(place: Place, user: PrefectUser, ran: dict[str, str]) -> None:
    api = place.api
    bad, unknown, later, params = (
        user.prefect("deployment", "run", "hello/cli", "-p", "times=many", code=1),
        user.prefect("deployment", "run", "hello/nothing", code=1),
        user.prefect(
            "deployment", "run", "hello/cli", "--start-in", "2 hours", "--tag", "later", "--job-variable", "env.X=one"
        ),
        user.prefect(
            "deployment", "run", "hello/cli", "--params", '{"name": "params"}', "--flow-run-name", "cli-params"
        ),
    )
    assert "Validation failed for field 'times'" in bad.text
    assert "Traceback" not in bad.text
    assert "not found" in unknown.text.lower()
    run = api.run(later.ids[0])
    assert (run["state_type"], run["tags"], run["job_variables"]) == ("SCHEDULED", ["later"], {"env.X": "one"})
    assert "cli-params" in params.text
    user.prefect("flow-run", "delete", later.ids[0])
    done = user.prefect("flow-run", "watch", params.ids[0], timeout=120)
    assert "finished successfully" in done.text
    assert "Hello, params!" in api.text(params.ids[0])


def test_watching_a_run_that_fails(place: Place, user: PrefectUser) -> None:
    deployment = place.deployment("features.py:raises", "cli-raises")
    done = user.prefect("deployment", "run", "--id", deployment, "--watch", timeout=120, code=1)
    assert "outer trouble" in done.text
    assert "Failed" in done.text


@pytest.mark.timeout(240)
def test_watching_shows_lines_while_their_run_goes_on(place: Place, user: PrefectUser) -> None:
    deployment = place.deployment("trouble.py:ticks")
    command = ("deployment", "run", "--id", deployment, "--flow-run-name", "watched", "-p", "seconds=120", "--watch")
    with user.start(*command) as watching:
        assert watching.stdout is not None
        shown = next((line for line in watching.stdout if "ticking" in line), "nothing but the run's end")
        [run] = place.api.runs(name={"any_": ["watched"]})
        place.cancel(run["id"])
        rest = watching.stdout.read()
    assert "ticking" in shown, rest
    assert run["state_type"] == "RUNNING"
    assert "ticking" not in rest, "each line is shown once"
    assert "Cancelled" in rest or "cancelled" in rest


def test_schedules(place: Place, user: PrefectUser, ran: dict[str, str]) -> None:
    api = place.api
    name = "hello/cli"

    def schedules() -> dict[str, dict[str, Any]]:
        return {next(key for key in ("cron", "interval", "rrule") if key in one["schedule"]): one
                for one in api.get("/deployments/name/hello/cli")["schedules"]}  # fmt: skip

    for arguments in (
        ("--cron", "0 3 * * *", "--timezone", "Europe/Berlin"),
        ("--interval", "86400", "--anchor-date", "2030-01-01T00:00:00+00:00"),
        ("--rrule", "FREQ=WEEKLY;BYDAY=MO", "--no-active"),
    ):
        user.prefect("deployment", "schedule", "create", name, *arguments, "-y")
    made = schedules()
    assert made["cron"]["schedule"]["timezone"] == "Europe/Berlin"
    assert made["rrule"]["active"] is False
    deployment = {"id": {"any_": [api.get("/deployments/name/hello/cli")["id"]]}}

    def upcoming() -> int:
        # The scheduler is woken by the change; it has its own moment.
        runs = api.post(
            "/flow_runs/filter", {"deployments": deployment, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        )
        return len(runs)

    deadline = time.monotonic() + 10
    while upcoming() < 6:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    listed, _, _ = user.all(
        ("deployment", "schedule", "ls", name),
        ("deployment", "schedule", "pause", name, made["cron"]["id"]),
        ("deployment", "schedule", "resume", name, made["rrule"]["id"]),
    )
    assert "0 3 * * *" in listed.text
    assert (schedules()["cron"]["active"], schedules()["rrule"]["active"]) == (False, True)
    user.prefect("deployment", "schedule", "delete", name, made["interval"]["id"], "-y")
    assert schedules().keys() == {"cron", "rrule"}
    user.prefect("deployment", "schedule", "clear", name, "-y")
    assert schedules() == {}
    assert upcoming() == 0


def test_deployment_is_deleted(place: Place, user: PrefectUser) -> None:
    place.deployment("tutorial.py:other", "cli-gone")
    done = user.prefect("deployment", "delete", "other/cli-gone")
    assert "Deleted deployment" in done.text
    gone = user.prefect("deployment", "inspect", "other/cli-gone", code=1)
    assert "not found" in gone.text.lower()


def test_flow_runs(place: Place, user: PrefectUser, ran: dict[str, str]) -> None:
    listed, shown, all_lines, head, tail, reverse = user.all(
        ("flow-run", "ls", "--limit", "50"),
        ("flow-run", "inspect", ran["hello"]),
        ("flow-run", "logs", ran["hello"]),
        ("flow-run", "logs", ran["hello"], "--head", "--num-logs", "3"),
        ("flow-run", "logs", ran["hello"], "--tail", "--num-logs", "2"),
        ("flow-run", "logs", ran["hello"], "--reverse"),
    )
    assert "cli-hello" in listed.text
    assert "COMPLETED" in shown.text.upper()
    lines = [line for line in all_lines.out.splitlines() if "|" in line]
    assert sum("line " in line for line in lines) == 30
    assert [line for line in head.out.splitlines() if "|" in line] == lines[:3]
    assert [line for line in tail.out.splitlines() if "|" in line] == lines[-2:]
    assert [line for line in reverse.out.splitlines() if "|" in line] == lines[::-1]


def test_flow_run_retry_and_delete(place: Place, user: PrefectUser, ran: dict[str, str]) -> None:
    api = place.api
    refused = user.prefect("flow-run", "retry", "no-such-run", code=1)
    assert "not found" in refused.text.lower()
    user.prefect("flow-run", "retry", ran["fails"])
    run = api.wait(ran["fails"], types={"COMPLETED"}) if _left_failed(place, ran["fails"]) else {}
    assert run["run_count"] == 2
    assert [one["attempt"] for one in place.daemon.ended(ran["fails"])] == [1, 2]
    assert "the second try is fine" in api.text(ran["fails"])
    user.prefect("flow-run", "delete", ran["fails"])
    assert api.runs(id={"any_": [ran["fails"]]}) == []


def _left_failed(place: Place, run_id: str) -> bool:
    """Whether the run stopped being Failed: it is terminal until its retry begins."""
    deadline = time.monotonic() + 30
    while place.api.run(run_id)["state_type"] == "FAILED":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return True


def test_task_runs(place: Place, user: PrefectUser, ran: dict[str, str]) -> None:
    [task_run] = place.api.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [ran["hello"]]}}})
    listed, shown, logged = user.all(
        ("task-run", "ls", "--limit", "100"),
        ("task-run", "inspect", task_run["id"]),
        ("task-run", "logs", task_run["id"]),
    )
    assert task_run["name"] in listed.text
    assert "shout" in shown.text
    assert "Finished in state Completed" in logged.text


# --- everything else ---------------------------------------------------------------------------------------------------------


def test_variables(place: Place, user: PrefectUser) -> None:
    user.prefect("variable", "set", "cli_word", "hello", "--tag", "a")
    again = user.prefect("variable", "set", "cli_word", "other", code=1)
    assert "already exists" in again.text
    user.all(
        ("variable", "set", "cli_word", "changed", "--overwrite"), ("variable", "set", "cli_json", '{"a": [1, 2]}')
    )
    listed, word, data, shown = user.all(
        ("variable", "ls"),
        ("variable", "get", "cli_word"),
        ("variable", "get", "cli_json"),
        ("variable", "inspect", "cli_word"),
    )
    assert "cli_json" in listed.text
    assert word.out.strip() == '"changed"'
    assert json.loads(data.out) == {"a": [1, 2]}
    assert "cli_word" in shown.text
    user.prefect("variable", "unset", "cli_word")
    missing = user.prefect("variable", "get", "cli_word", code=1)
    assert "not found" in missing.text


def test_global_concurrency_limits(place: Place, user: PrefectUser) -> None:
    api = place.api
    user.prefect("gcl", "create", "cli-limit", "--limit", "2")
    user.prefect("gcl", "update", "cli-limit", "--limit", "9")
    listed, shown, _ = user.all(("gcl", "ls"), ("gcl", "inspect", "cli-limit"), ("gcl", "disable", "cli-limit"))
    assert "cli-limit" in listed.text
    assert "cli-limit" in shown.text
    assert api.get("/v2/concurrency_limits/cli-limit")["active"] is False
    user.prefect("gcl", "enable", "cli-limit")
    user.prefect("gcl", "delete", "cli-limit")
    assert "cli-limit" not in [one["name"] for one in api.post("/v2/concurrency_limits/filter")]


def test_task_concurrency_limits(place: Place, user: PrefectUser) -> None:
    user.prefect("concurrency-limit", "create", "cli-tag", "3")
    listed, shown = user.all(("concurrency-limit", "ls"), ("concurrency-limit", "inspect", "cli-tag"))
    assert "cli-tag" in listed.text
    assert "cli-tag" in shown.text
    user.prefect("concurrency-limit", "reset", "cli-tag")
    user.prefect("concurrency-limit", "delete", "cli-tag")


BLOCK = """
from prefect.blocks.core import Block
from pydantic import SecretStr

class Harbor(Block):
    "A block of the user's own."
    dock: str = "north"
    pin: SecretStr

if __name__ == "__main__":
    Harbor(pin="a pin").save("cli-harbor", overwrite=True)
"""


def test_blocks(place: Place, user: PrefectUser) -> None:
    (user.folder / "harbor.py").write_text(BLOCK)
    registered = user.prefect("block", "register", "--file", "harbor.py")
    assert "Successfully registered" in registered.text
    user.python(BLOCK)
    types, listed, shown, type_shown = user.all(
        ("block", "type", "ls"),
        ("block", "ls"),
        ("block", "inspect", "harbor/cli-harbor"),
        ("block", "type", "inspect", "harbor"),
    )
    assert "harbor" in types.text
    assert "harbor/cli-harbor" in listed.text
    assert "north" in shown.text
    assert "a pin" not in shown.text
    assert "A block of the user's own" in type_shown.text
    user.prefect("block", "delete", "harbor/cli-harbor")
    user.prefect("block", "type", "delete", "harbor")
    assert "harbor" not in [one["slug"] for one in place.api.post("/block_types/filter")]


def test_artifacts(place: Place, user: PrefectUser) -> None:
    api = place.api
    for text in ("first", "second"):
        api.post("/artifacts/", {"key": "cli-artifact", "type": "markdown", "data": text})
    listed, every, shown = user.all(
        ("artifact", "ls"), ("artifact", "ls", "--all"), ("artifact", "inspect", "cli-artifact")
    )
    assert listed.text.count("cli-artifact") == 1
    assert every.text.count("cli-artifact") == 2
    assert "second" in shown.text
    user.prefect("artifact", "delete", "cli-artifact")
    assert api.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["cli-artifact"]}}}) == []


AUTOMATION = {
    "name": "cli-automation",
    "trigger": {"type": "event", "posture": "Reactive", "expect": ["cli.happened"], "threshold": 1},
    "actions": [{"type": "do-nothing"}],
}


def test_automations(place: Place, user: PrefectUser) -> None:
    api = place.api
    user.prefect("automation", "create", "--from-json", json.dumps(AUTOMATION))
    listed, shown, _ = user.all(
        ("automation", "ls"), ("automation", "inspect", "cli-automation"), ("automation", "pause", "cli-automation")
    )
    assert "cli-automation" in listed.text
    assert "cli.happened" in shown.text
    [made] = [one for one in api.post("/automations/filter", {"automations": None}) if one["name"] == "cli-automation"]
    assert made["enabled"] is False
    user.prefect("automation", "resume", "cli-automation")
    user.prefect("automation", "delete", "cli-automation")
    gone = user.prefect("automation", "inspect", "cli-automation", code=1)
    assert "not found" in gone.text.lower()


def test_profiles_and_configuration(place: Place) -> None:
    user = place.user  # what these commands change is read when a process begins
    user.prefect("profile", "create", "cli-profile")
    user.prefect("-p", "cli-profile", "config", "set", f"PREFECT_API_URL={place.daemon.url}", code=None)
    used = user.prefect("profile", "use", "cli-profile")
    assert "Connected to Prefect server" in used.text or "cli-profile" in used.text
    viewed, version, raw = user.all(("config", "view"), ("version",), ("api", "GET", "/health"))
    assert place.daemon.url in viewed.text
    assert re.search(r"Version: +3\.8\.8", version.text)
    assert raw.out.strip() == "true"


def test_cloud_login_knows_the_workspace(place: Place) -> None:
    user = place.user  # what these commands change is read when a process begins
    [workspace] = place.api.get("/me/workspaces")
    handle = f"{workspace['account_handle']}/{workspace['workspace_handle']}"
    home = {
        "PREFECT_HOME": str(user.folder / "cloud-home"),
        "PREFECT_CLOUD_API_URL": place.daemon.url,
        "PREFECT_API_URL": "",
    }
    done = user.prefect("cloud", "login", "--key", "any-key", "--workspace", handle, **home)
    assert handle in done.text
    done = user.prefect("cloud", "login", "--key", "any-key", "--workspace", "no/where", code=1, **home)
    assert "not found" in done.text
