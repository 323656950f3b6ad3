"""Prefect's own tutorial for managed execution, word for word, with nothing but the public client."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.contract.place import POOL

if TYPE_CHECKING:
    from tests.contract.place import Place

pytestmark = [pytest.mark.docker, pytest.mark.client, pytest.mark.slow]

SCRIPT = """
from prefect import flow

if __name__ == "__main__":
    flow.from_source(source={source!r}, entrypoint="tutorial.py:hello").deploy(
        name="guide", work_pool_name={pool!r}, job_variables={{"env": {{"GREETING": "hi"}}}}, tags=["guide"], {more}
    )
"""

YAML = """
name: project
prefect-version: 3.8.8
pull:
- prefect.deployments.steps.git_clone:
    id: clone
    repository: {source}
    branch: main
- prefect.deployments.steps.pip_install_requirements:
    directory: '{{{{ clone.directory }}}}'
    requirements_file: requirements.txt
    stream_output: true
deployments:
- name: from-yaml
  entrypoint: tutorial.py:with_package
  work_pool:
    name: {pool}
    job_variables:
      env:
        FROM_YAML: "yes"
- name: second
  entrypoint: tutorial.py:other
  parameters:
    seconds: 0
  work_pool:
    name: {pool}
  schedules:
  - interval: 12
    active: true
    slug: often
  - cron: "* * * * *"
    timezone: Europe/Berlin
    active: true
    slug: every-minute
"""


def test_script_deploys_and_run_is_watched_to_its_end(place: Place) -> None:
    user = place.user
    done = user.python(SCRIPT.format(source=place.flows, pool=POOL, more=""))
    assert "Successfully created/updated all deployments!" in done.text or "guide" in done.text
    assert "start a worker" not in done.text.lower(), "a managed pool needs no worker"
    watched = user.prefect(
        "deployment", "run", "hello/guide", "-p", "name=Marvin", "-p", "times=3", "--watch", "--flow-run-name", "first",
        timeout=120,
    )  # fmt: skip
    assert "Hello, Marvin!" in watched.text
    assert "line 2" in watched.text
    assert "Flow run finished successfully" in watched.text
    run = place.api.run(watched.ids[0])
    assert (run["state_type"], run["name"], run["run_count"]) == ("COMPLETED", "first", 1)
    assert run["tags"] == ["guide"]
    assert run["work_pool_name"] == POOL
    [execution] = place.daemon.ended(run["id"])
    assert (execution["phase"], execution["end_cause"], execution["exit_code"]) == ("FINALIZED", "completed", 0)
    tasks = place.api.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert [(one["state_name"], one["task_key"].partition("-")[0]) for one in tasks] == [("Completed", "shout")]


def test_script_again_updates_the_deployment(place: Place) -> None:
    user = place.user
    user.python(SCRIPT.format(source=place.flows, pool=POOL, more=""))
    before = place.api.get("/deployments/name/hello/guide")
    user.python(
        SCRIPT.format(source=place.flows, pool=POOL, more='version="2", parameters={"times": 2}, cron="0 9 * * 1-5"')
    )
    after = place.api.get("/deployments/name/hello/guide")
    assert after["id"] == before["id"]
    assert (after["version"], after["parameters"]) == ("2", {"times": 2})
    assert [one["schedule"]["cron"] for one in after["schedules"]] == ["0 9 * * 1-5"]
    assert len(place.api.runs(deployment_id={"any_": [after["id"]]}, state={"type": {"any_": ["SCHEDULED"]}})) >= 3
    user.python(SCRIPT.format(source=place.flows, pool=POOL, more='version="3", schedules=[]'))
    last = place.api.get("/deployments/name/hello/guide")
    assert (last["version"], last["schedules"]) == ("3", [])
    assert not place.api.runs(deployment_id={"any_": [last["id"]]}, state={"type": {"any_": ["SCHEDULED"]}})


@pytest.mark.timeout(300)
def test_prefect_yaml_pull_steps_and_schedules_that_fire(place: Place) -> None:
    user, api = place.user, place.api
    source = place.git.repository(
        "project",
        {"tutorial.py": place.folder / "git" / "flows.work" / "tutorial.py", "requirements.txt": "humanize\n"},
    )
    project = user.folder / "project"
    project.mkdir()
    (project / "tutorial.py").write_text((place.folder / "git" / "flows.work" / "tutorial.py").read_text())
    (project / "prefect.yaml").write_text(YAML.format(source=source, pool=POOL))
    done = user.prefect("--no-prompt", "deploy", "--all", cwd=project)
    assert "from-yaml" in done.text
    scheduled = api.get("/deployments/name/other/second")
    schedules = {one["slug"]: one["id"] for one in scheduled["schedules"]}
    assert schedules.keys() == {"often", "every-minute"}
    again = user.prefect("--no-prompt", "deploy", "-n", "from-yaml", cwd=project)
    assert "from-yaml" in again.text

    watching = user.start("deployment", "run", "with-package/from-yaml", "--watch")

    # Meanwhile both schedules fire; the limit keeps this machine's processors for all of it.
    of_mine = {"deployment_id": {"any_": [scheduled["id"]]}}
    deadline = time.monotonic() + 120
    while True:
        begun = [run for run in api.runs(**of_mine) if run["state_type"] != "SCHEDULED"]
        fired = {slug: [run for run in begun if run["created_by"]["id"] == id_] for slug, id_ in schedules.items()}
        if len(fired["often"]) >= 2 and fired["every-minute"]:
            break
        assert time.monotonic() < deadline, fired
        time.sleep(0.5)
    user.prefect("deployment", "schedule", "clear", "other/second", "-y")
    assert not api.runs(**of_mine, state={"type": {"any_": ["SCHEDULED"]}})
    for one in begun:
        run = api.wait(one["id"], types={"COMPLETED"})
        assert run["auto_scheduled"]
        assert run["start_time"] > run["expected_start_time"]
        assert (run["run_count"], len(place.daemon.executions(run["id"]))) == (1, 1)
    assert all(one["expected_start_time"][17:19] == "00" for one in fired["every-minute"])
    seconds = {datetime.fromisoformat(one["expected_start_time"]).timestamp() % 12 for one in fired["often"]}
    assert len(seconds) == 1, "each is twelve seconds after the one before"

    said, _ = watching.communicate(timeout=150)
    assert watching.returncode == 0, said
    assert "humanized: 1,234,567" in said
    [run] = api.runs(deployment_id={"any_": [api.get("/deployments/name/with-package/from-yaml")["id"]]})
    assert "2 deployment pull step(s)" in api.text(run["id"])
