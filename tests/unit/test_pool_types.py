"""The types of pools that the server knows, and the templates they begin with."""

from __future__ import annotations

import re

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.orchestration.job_variables import check_template, defaults_from_schema, merge, render
from managedd.orchestration.managed_job import ManagedJob, managed_job
from managedd.orchestration.pool_types import (
    MANAGED,
    check_offered,
    default_template,
    is_managed,
    pool_type,
    worker_metadata,
)

KEYS = {
    "type",
    "display_name",
    "description",
    "documentation_url",
    "logo_url",
    "install_command",
    "is_beta",
    "default_base_job_configuration",
}
TYPES = ("process", "docker", "kubernetes", MANAGED)


def test_every_entry_has_the_keys_that_the_client_shows() -> None:
    entries = [entry for collection in worker_metadata().values() for entry in collection.values()]
    assert [entry["type"] for entry in entries] == list(TYPES)
    for entry in entries:
        assert set(entry) == KEYS
        assert entry["display_name"]
        assert entry["description"]
        assert re.match(r"https://", entry["documentation_url"])
        assert entry["is_beta"] is False


@pytest.mark.parametrize("name", TYPES)
def test_every_template_is_one_that_a_pool_may_have(name: str) -> None:
    template = default_template(name)
    assert template is not None
    check_template(template)
    assert set(template) == {"job_configuration", "variables"}
    assert "image" in template["variables"]["properties"] or name == "process"


def test_the_managed_template_renders_to_a_job_without_any_variables() -> None:
    template = default_template(MANAGED)
    assert template is not None
    assert set(template["variables"]["properties"]) == {
        "env",
        "image",
        "pip_packages",
        "timeout",
        "memory_limit",
        "cpu_limit",
    }
    assert defaults_from_schema(template) == {"pip_packages": []}, "a default image here would hide runs.image"
    assert managed_job(render(template["job_configuration"], merge(template))) == ManagedJob()


def test_what_was_handed_out_may_be_changed() -> None:
    worker_metadata()["prefect"].clear()
    assert pool_type("process") is not None
    template = default_template(MANAGED)
    assert template is not None
    template.clear()
    assert default_template(MANAGED) != {}


def test_types_that_are_not_ours_have_no_entry() -> None:
    assert pool_type("ecs") is None
    assert default_template("ecs") is None
    assert is_managed(MANAGED)
    assert not is_managed("docker")


def test_workers_of_any_type_are_welcome() -> None:
    for name in (*TYPES, "ecs", "my-own-worker"):
        check_offered(name)


@pytest.mark.parametrize("name", ["ecs:push", "cloud-run-v2:push", "modal:push", "something:push"])
def test_push_types_are_explained(name: str) -> None:
    with pytest.raises(ManagedError, match=f"{name}.*push work pool.*not offered yet.*prefect:managed") as caught:
        check_offered(name)
    assert caught.value.code is ErrorCode.INVALID


def test_another_managed_type_is_none() -> None:
    with pytest.raises(ManagedError, match="prefect:managed"):
        check_offered("other:managed")


def test_the_managed_template_bounds_nothing_that_a_plan_bounds() -> None:
    template = default_template(MANAGED)
    assert template is not None
    timeout = template["variables"]["properties"]["timeout"]
    assert (timeout["type"], timeout["exclusiveMinimum"], "maximum" in timeout) == ("integer", 0, False)


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("timeout", "runs.time_limit_seconds"),
        ("memory_limit", "runs.memory_limit_bytes"),
        ("cpu_limit", "runs.cpu_limit"),
    ],
)
def test_the_managed_template_says_what_is_used_for_an_empty_limit(variable: str, setting: str) -> None:
    template = default_template(MANAGED)
    assert template is not None
    assert setting in template["variables"]["properties"][variable]["description"]
