"""`prefect cloud login` and then the whole tutorial with the public client, as two users in two workspaces at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.place import DEPLOY
from tests.support.daemon import LiveDaemon
from tests.support.git_server import GitServer
from tests.support.http import Api, HttpError
from tests.support.prefect_user import PrefectUser, in_threads, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow, pytest.mark.timeout(400)]

FLOWS = Path(__file__).with_name("flows")
AUTH_STRING = "admin:of-everything"
POOL = "managed"
PROFILE = re.compile(r"PREFECT_PROFILE='([^']+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with a key of one workspace, and a word of their own."""

    word: str
    handle: str
    key: str
    url: str
    """The workspace's, for `PREFECT_API_URL`."""
    prefect: PrefectUser

    @property
    def api(self) -> Api:
        """The workspace, by the key."""
        return Api(self.url, headers={"Authorization": f"Bearer {self.key}"})


@pytest.fixture(scope="module")
def daemon(docker_engine: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """A daemon that asks everybody for a credential."""
    made = LiveDaemon(
        tmp_path_factory.mktemp("tenants") / "daemon",
        docker_host=docker_engine.docker_host,
        settings={
            "server": {"auth_string": AUTH_STRING},
            "runs": {"listen_port": 0, "cancel_grace_seconds": 10.0, "stop_grace_seconds": 3.0, **_bundle()},
            "docker": {"host_allow": ["*"]},
        },
    )
    with contextlib.ExitStack() as until_the_end:
        until_the_end.callback(made.close)
        made.start()
        yield made
        assert made.complaints() == []


def _bundle() -> dict[str, str]:
    host = os.environ.get("SSL_CERT_FILE")
    return {"ca_bundle": host} if host else {}


@pytest.fixture(scope="module")
def source(daemon: LiveDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The repository of both users' flows."""
    with GitServer(tmp_path_factory.mktemp("git"), daemon.gateway).serving() as server:
        yield server.repository("tenants", {"tenants.py": FLOWS / "tenants.py"})


@pytest.fixture(scope="module")
def users(prefect_venv: Provisioned, daemon: LiveDaemon, tmp_path_factory: pytest.TempPathFactory) -> list[User]:
    """Two people with a workspace each, made by commands on the host."""

    def one(word: str, account: str) -> User:
        handle = f"{account}/prod"
        daemon.operator("workspace", "create", handle, "--plan", "pro")
        made = daemon.operator("key", "create", "--workspace", handle, "--name", word, "--role", "developer")
        prefect = somebody(prefect_venv, daemon.url, tmp_path_factory.mktemp(account))
        return User(word=word, handle=handle, key=made["key"], url=made["api_url"], prefect=prefect)

    return [one("aubergine", "acme"), one("broccoli", "globex")]


def test_login_ls_set_and_logout(
    prefect_venv: Provisioned, daemon: LiveDaemon, users: list[User], tmp_path: Path
) -> None:
    person, (first, second) = somebody(prefect_venv, daemon.url, tmp_path), users
    login = ("cloud", "login", "--key")
    # Each process that was warmed knows the profile of its start, so that what a command has changed is seen by the next.
    with person.warmed() as stranger:
        wrong = stranger.prefect(*login, "mgk_wrong", "--workspace", first.handle, code=1)
        assert "Unable to authenticate with Prefect Cloud" in wrong.text
        elsewhere = stranger.prefect(*login, first.key, "--workspace", second.handle, code=1)
        assert f"Workspace '{second.handle}' not found. Available workspaces: '{first.handle}'" in elsewhere.text
        done = stranger.prefect(*login, first.key, "--workspace", first.handle)
        assert f"Authenticated with Prefect Cloud! Using workspace '{first.handle}'." in done.text
    with person.warmed() as known:
        shown = known.prefect("config", "view", "--show-secrets").text
        assert first.url in shown
        assert first.key in shown
        listed = json.loads(known.prefect("cloud", "workspace", "ls", "-o", "json").out)
        assert [each["workspace_id"] for each in listed] == [first.url.rpartition("/")[2]]
        assert "3.8.8" in known.prefect("version").text
        refused = known.prefect("cloud", "ip-allowlist", "ls", code=1)
        assert "IP allowlisting is not available for this account" in refused.text
        [profile] = PROFILE.findall(shown)
        assert f"Connected to Prefect Cloud using profile '{profile}'" in known.prefect("profile", "use", profile).text
        assert "Logged out" in known.prefect("cloud", "logout").text
    assert "Currently not authenticated" in person.prefect("cloud", "workspace", "ls", code=1).text
    # Who oversees all is offered all.
    person.prefect(*login, AUTH_STRING, "--workspace", second.handle)
    with person.warmed() as overseer:
        listed = overseer.prefect("cloud", "workspace", "ls").text
        assert f"* {second.handle}" in listed
        assert {first.handle, "default/default"} <= set(listed.split())
        moved = overseer.prefect("cloud", "workspace", "set", "--workspace", first.handle)
        assert f"'{first.handle}'" in moved.text


def test_the_tutorial_by_two_at_the_same_time(daemon: LiveDaemon, source: str, users: list[User]) -> None:
    runs = dict(
        zip(
            (user.word for user in users),
            in_threads(*(lambda user=user: tutorial(user, source) for user in users)),
            strict=True,
        )
    )
    for user, other in (users, users[::-1]):
        sees_only_its_own(user, other, runs)
        pays_only_its_own(daemon, user, runs[user.word])
    operators = Api(daemon.url, headers={"Authorization": f"Bearer {AUTH_STRING}"})
    assert operators.post("/flow_runs/filter", {}) == [], "nothing of them is in the default workspace"


def tutorial(user: User, source: str) -> dict[str, str]:
    """The ids of the runs that the user has started, by their flows; every step is the public client's."""
    login = user.prefect.prefect("cloud", "login", "--key", user.key, "--workspace", user.handle)
    assert f"Using workspace '{user.handle}'" in login.text
    with user.prefect.warmed() as warm:
        made = warm.prefect("work-pool", "create", POOL, "--type", "prefect:managed")
        assert f"Created work pool '{POOL}'" in made.text
        flows: list[dict[str, Any]] = [
            {"entrypoint": "tenants.py:mine", "name": "mine", "job_variables": {"pip_packages": ["humanize"]}, "options": {"cron": "0 9 * * *"}},
            *({"entrypoint": f"tenants.py:{name}", "name": name, "job_variables": {}, "options": {}} for name in ("below", "slow", "asks", "curious")),
        ]  # fmt: skip
        deploying: list[dict[str, Any]] = [{**each, "source": source, "pool": POOL} for each in flows]
        user.prefect.python(DEPLOY, json.dumps(deploying), timeout=150)
        warm.prefect("gcl", "create", "shared", "--limit", "1")
        slow = warm.prefect("deployment", "run", "slow/slow").ids[0]
        asks = warm.prefect("deployment", "run", "asks/asks").ids[0]
        watched = warm.prefect("deployment", "run", "mine/mine", "-p", f"word={user.word}", "--watch", timeout=200)
        assert f"word: {user.word} humanized: 1,234,567" in watched.text
        assert "mode: cloud" in watched.text
        assert "Flow run finished successfully" in watched.text
        wait_for_line(user, slow, "ticking")
        assert "successfully scheduled for cancellation" in warm.prefect("flow-run", "cancel", slow).text
        user.api.wait(asks, types={"PAUSED"})
        answered = user.api.post(f"/flow_runs/{asks}/resume", {"run_input": {"number": 42}})
        assert answered["status"] == "ACCEPT", answered
        user.api.wait(asks, types={"COMPLETED"})
        assert "answered 42" in user.api.text(asks)
        user.api.wait(slow, types={"CANCELLED"})
    [below] = [run["id"] for run in user.api.runs() if run["flow_id"] == user.api.get("/flows/name/below")["id"]]
    return {"mine": watched.ids[0], "slow": slow, "asks": asks, "below": below}


def wait_for_line(user: User, run_id: str, words: str) -> None:
    """The run has printed the words."""
    user.api.wait(run_id, types={"RUNNING"})
    deadline = time.monotonic() + 60
    while words not in user.api.text(run_id):
        assert time.monotonic() < deadline, user.api.text(run_id)
        time.sleep(0.3)


def sees_only_its_own(user: User, other: User, runs: dict[str, dict[str, str]]) -> None:
    """What they called the same is each one's own, and nothing of the other is in any list."""
    api, theirs = user.api, runs[other.word]
    begun = {run["id"] for run in api.runs() if run["state_type"] != "SCHEDULED"}
    assert {*runs[user.word].values()} <= begun
    assert not begun & {*theirs.values()}
    assert [pool["name"] for pool in api.post("/work_pools/filter")] == [POOL]
    assert {each["name"] for each in api.post("/deployments/filter")} == {"mine", "below", "slow", "asks", "curious"}
    assert api.get("/variables/name/shared")["value"] == user.word
    [inside] = [run["id"] for run in api.runs() if run["flow_id"] == api.get("/flows/name/inside")["id"]]
    assert f"inside {user.word}" in api.text(inside)
    secret = api.get("/block_types/slug/secret/block_documents/name/shared?include_secrets=true")
    assert secret["data"]["value"] == user.word
    assert api.get("/artifacts/shared/latest")["data"] == user.word
    told = api.post("/events/filter", {"filter": {"event": {"name": ["tenants.said"]}}})["events"]
    assert [event["resource"]["prefect.resource.id"] for event in told] == [f"tenants.{user.word}"]
    assert api.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [*theirs.values()]}}}) == []
    assert (
        api.post(
            "/events/filter",
            {"filter": {"any_resource": {"id": [f"prefect.flow-run.{run}" for run in theirs.values()]}}},
        )["events"]
        == []
    )
    for run in theirs.values():
        with pytest.raises(HttpError) as refused:
            api.run(run)
        assert refused.value.status == 404
    with pytest.raises(HttpError) as refused:
        Api(other.url, headers={"Authorization": f"Bearer {user.key}"}).post("/flow_runs/filter")
    assert refused.value.status == 404


def pays_only_its_own(daemon: LiveDaemon, user: User, runs: dict[str, str]) -> None:
    """Each container of the user's runs, and no other, is in the usage of the user's workspace."""
    executions = [execution for run in runs.values() for execution in daemon.ended(run)]
    # One that was suspended has had two.
    assert len(executions) == len(runs) + 1
    report = user.api.get("/managed/usage")
    assert sum(each["executions"] for each in report["by"]) == len(executions)
    assert {each["name"] for each in report["by"]} == {"mine/mine", "below/below", "slow/slow", "asks/asks"}
    assert report["used_minutes"] >= len(executions)


def test_a_runs_key_opens_nothing_but_what_is_its_runs(daemon: LiveDaemon, users: list[User]) -> None:
    """After the tutorial: a flow tries what no flow needs."""
    first, second = users
    victim = first.api.runs(state={"type": {"any_": ["CANCELLED"]}})[0]
    deployment = first.api.get("/deployments/name/slow/slow")["id"]
    elsewhere = second.api.runs(state={"type": {"any_": ["CANCELLED"]}})[0]
    tries = {
        "run_id": victim["id"],
        "deployment_id": deployment,
        "elsewhere": second.url.removeprefix(daemon.url),
        "elsewhere_run_id": elsewhere["id"],
    }
    curious = first.api.get("/deployments/name/curious/curious")["id"]
    body = {"state": {"type": "SCHEDULED"}, "parameters": tries}
    run = first.api.post(f"/deployments/{curious}/create_flow_run", body)["id"]
    first.api.wait(run, types={"COMPLETED"})
    [line] = [line for line in first.api.text(run).splitlines() if line.startswith("ANSWERS")]
    assert json.loads(line.removeprefix("ANSWERS")) == {
        "another's state": 403,
        "another's name": 403,
        "a deployment's end": 403,
        "a pool": 403,
        "a key": 403,
        "the keys": 403,
        "a run elsewhere": 404,
        "its state": 403,
        "the workspace elsewhere": 404,
        "a variable elsewhere": 404,
    }
    assert first.api.run(victim["id"])["state_id"] == victim["state_id"]
    assert second.api.run(elsewhere["id"])["state_id"] == elsewhere["state_id"]
    assert first.api.get(f"/deployments/{deployment}")["name"] == "slow"
