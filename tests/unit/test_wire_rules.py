"""The rules of single wire models: what each takes and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError, create_model

from managedd.wire import base, events
from managedd.wire.artifacts import ArtifactCreate
from managedd.wire.automations import AutomationCreate, EventTrigger
from managedd.wire.blocks import BlockDocumentCreate, BlockTypeCreate
from managedd.wire.deployments import DeploymentCreate, DeploymentUpdate
from managedd.wire.events import Event
from managedd.wire.filters.events import EventFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.leaves import MAX_ALTERNATIVES, MAX_PATTERN_CHARS, MAX_VALUES, TextAnyLike
from managedd.wire.filters.logs import LogFilterTextSearch
from managedd.wire.filters.task_runs import TaskRunFilterFlowRunId
from managedd.wire.filters.work_queues import WorkQueueFilterName
from managedd.wire.flow_runs import FlowRunCreate, FlowRunPolicy, FlowRunUpdate
from managedd.wire.flows import FlowCreate
from managedd.wire.schedules import CronSchedule, DeploymentScheduleCreate, IntervalSchedule, RRuleSchedule
from managedd.wire.states import StateCreate
from managedd.wire.task_runs import TaskRunCreate, TaskRunPolicy
from managedd.wire.variables import VariableCreate
from managedd.wire.work_pools import WorkPoolCreate, WorkPoolUpdate
from managedd.wire.work_queues import WorkQueueCreate

ID = "0efd1f2a-8fd2-45bd-8d5b-0d6c2fa3c2a1"
RESOURCE = {"prefect.resource.id": "prefect.flow-run.1"}


# ---- common types


def test_an_id_has_one_spelling() -> None:
    spellings = [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"]
    assert {FlowRunCreate.model_validate({"flow_id": one}).flow_id for one in spellings} == {ID}
    for wrong in ("", "x", ID[:-1], 7, None):
        with pytest.raises(ValidationError):
            FlowRunCreate.model_validate({"flow_id": wrong})


def test_a_timestamp_is_aware_and_in_utc() -> None:
    stamp = TypeAdapter(base.Timestamp)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for same in ("2026-03-01T12:00:00", "2026-03-01T12:00:00Z", "2026-03-01T14:30:00+02:30", noon, noon.timestamp()):
        assert stamp.validate_python(same) == noon
        assert stamp.validate_python(same).utcoffset() == timedelta()
    assert stamp.dump_json(noon) == b'"2026-03-01T12:00:00Z"'
    for wrong in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "yesterday"):
        with pytest.raises(ValidationError):
            stamp.validate_python(wrong)


@pytest.mark.parametrize("wrong", ["", "a/b", "50%", "a&b", "a<b", "a>b", "n" * (base.MAX_NAME_CHARS + 1)])
def test_a_name_fits_into_a_url(wrong: str) -> None:
    assert FlowCreate.model_validate({"name": "n" * base.MAX_NAME_CHARS}).name
    with pytest.raises(ValidationError):
        FlowCreate.model_validate({"name": wrong})


def test_tags_are_bounded() -> None:
    assert len(FlowCreate.model_validate({"name": "f", "tags": ["t"] * base.MAX_TAGS}).tags) == base.MAX_TAGS
    for wrong in (["t"] * (base.MAX_TAGS + 1), ["t" * (base.MAX_TAG_CHARS + 1)], "tag", [1]):
        with pytest.raises(ValidationError):
            FlowCreate.model_validate({"name": "f", "tags": wrong})


def test_labels_keep_their_types() -> None:
    labels = {"text": "1", "whole": 1, "part": 1.0, "truth": True}
    taken = FlowCreate.model_validate({"name": "f", "labels": labels}).labels
    assert taken is not None
    assert [type(value) for value in taken.values()] == [str, int, float, bool]
    for wrong in ({"a": None}, {"a": [1]}, {"a": {}}, {"a": 2**70}):
        with pytest.raises(ValidationError):
            FlowCreate.model_validate({"name": "f", "labels": wrong})


def test_parameters_are_at_most_512_kib_of_json() -> None:
    room = base.MAX_PARAMETERS_BYTES - len(b'{"p":""}')
    FlowRunCreate.model_validate({"flow_id": ID, "parameters": {"p": "x" * room}})
    for model in (FlowRunCreate, FlowRunUpdate, DeploymentCreate, DeploymentUpdate):
        with pytest.raises(ValidationError, match="524,288"):
            model.model_validate({"flow_id": ID, "name": "n", "parameters": {"p": "x" * (room + 1)}})


def test_values_that_are_no_json_are_refused() -> None:
    for wrong in (2**64, "\ud800", {1: 2}, object()):
        with pytest.raises(ValueError, match="no JSON"):
            base.json_size_bytes(wrong)


def test_a_page_has_at_most_200_rows() -> None:
    body: Any = create_model("Body", limit=(base.Limit, None))
    assert [body.model_validate({"limit": one}).limit for one in (None, 0, 7, 200)] == [200, 0, 7, 200]
    assert body.model_validate({}).limit == 200
    for wrong in (-1, 201, 10**30, "many"):
        with pytest.raises(ValidationError):
            body.model_validate({"limit": wrong})
    assert body.model_json_schema()["properties"]["limit"]["type"] == "integer"
    offset = TypeAdapter(base.Offset)
    assert offset.validate_python(0) == 0
    for out in (-1, 2**63):
        with pytest.raises(ValidationError):
            offset.validate_python(out)


# ---- runs and states


def test_a_run_without_a_name_is_given_one() -> None:
    for given_name in ({}, {"name": None}, {"name": ""}):
        adjective, animal = FlowRunCreate.model_validate({"flow_id": ID, **given_name}).name.split("-")
        assert adjective
        assert animal
    assert FlowRunCreate.model_validate({"flow_id": ID, "name": "mine"}).name == "mine"
    assert len({base.new_run_name() for _ in range(50)}) > 25
    assert "name" not in FlowRunUpdate.model_validate({"tags": []}).model_dump(exclude_unset=True)
    assert FlowRunUpdate.model_validate({"name": None}).name
    assert TaskRunCreate.model_validate({"task_key": "k", "dynamic_key": "0"}).name


def test_a_state_is_named_after_its_type() -> None:
    assert StateCreate.model_validate({"type": "CANCELLING"}).name == "Cancelling"
    assert StateCreate.model_validate({"type": "SCHEDULED", "name": "AwaitingRetry"}).name == "AwaitingRetry"
    with pytest.raises(ValidationError):
        StateCreate.model_validate({"type": "running"})


def test_the_old_names_of_a_policy_fill_the_new_ones() -> None:
    old = {"max_retries": 3, "retry_delay_seconds": 5}
    for policy in (FlowRunPolicy.model_validate(old), TaskRunPolicy.model_validate(old)):
        assert (policy.retries, policy.retry_delay) == (3, 5)
    new = FlowRunPolicy.model_validate({"retries": 1, "max_retries": 3})
    assert (new.retries, new.max_retries) == (1, 3)
    assert TaskRunPolicy.model_validate({"retry_delay": [1, 2.5]}).retry_delay == [1, 2.5]
    for wrong in ({"retry_delay": [1] * 51}, {"retry_delay": [0.5] * 51}, {"retry_jitter_factor": -0.1}):
        with pytest.raises(ValidationError):
            TaskRunPolicy.model_validate(wrong)


def test_a_cache_key_is_bounded() -> None:
    task = {"task_key": "k", "dynamic_key": "0"}
    assert TaskRunCreate.model_validate({**task, "cache_key": "c" * 2_000}).cache_key
    with pytest.raises(ValidationError):
        TaskRunCreate.model_validate({**task, "cache_key": "c" * 2_001})


# ---- deployments


def test_the_kind_of_a_schedule_is_known_by_its_key() -> None:
    def schedule(document: dict[str, Any]) -> Any:
        return DeploymentScheduleCreate.model_validate({"schedule": document}).schedule

    assert schedule({"cron": "* * * * *", "timezone": "Europe/Berlin"}) == CronSchedule(
        cron="* * * * *", timezone="Europe/Berlin"
    )
    assert schedule({"rrule": "FREQ=DAILY"}) == RRuleSchedule(rrule="FREQ=DAILY", timezone="UTC")
    every = schedule({"interval": 90})
    assert isinstance(every, IntervalSchedule)
    assert (every.interval, every.timezone) == (timedelta(seconds=90), "UTC")
    assert abs(every.anchor_date - datetime.now(UTC)) < timedelta(minutes=1)
    assert json.loads(every.model_dump_json())["interval"] == 90.0
    for wrong in ({}, {"interval": 0}, {"interval": -1}, {"interval": 60, "cron": "* * * * *"}, {"cron": None}):
        with pytest.raises(ValidationError):
            schedule(wrong)


def test_a_schedule_makes_at_most_50_runs_ahead() -> None:
    for count, good in ((1, True), (50, True), (51, False), (0, False)):
        body = {"schedule": {"interval": 60}, "max_scheduled_runs": count}
        if good:
            DeploymentScheduleCreate.model_validate(body)
        else:
            with pytest.raises(ValidationError):
                DeploymentScheduleCreate.model_validate(body)


def test_a_patch_tells_what_was_sent() -> None:
    patch = DeploymentUpdate.model_validate(
        {"concurrency_limit": None, "schedules": [{"slug": "nightly", "active": False}]}
    )
    assert patch.model_dump(exclude_unset=True) == {
        "concurrency_limit": None,
        "schedules": [{"slug": "nightly", "active": False}],
    }


# ---- pools, variables, blocks, artifacts


@pytest.mark.parametrize(
    ("template", "good"),
    [
        ({}, True),
        ({"job_configuration": {"env": "{{ env }}"}, "variables": {"properties": {"env": {}}}}, True),
        ({"job_configuration": {"a": {"b": ["{{x}}-{{ y }}"]}}, "variables": {"properties": {"x": {}, "y": {}}}}, True),
        ({"job_configuration": {"a": {"b": ["{{x}}-{{ y }}"]}}, "variables": {"properties": {"x": {}}}}, False),
        ({"job_configuration": {"env": "{{ env }}"}}, False),
        ({"variables": {"properties": {}}}, False),
        ({"job_configuration": ["{{ env }}"], "variables": {"properties": {"env": {}}}}, False),
        ({"job_configuration": {"env": 1}, "variables": ["env"]}, False),
        ({"job_configuration": {"env": 1}, "variables": {"properties": ["env"]}}, False),
    ],
)
def test_a_template_declares_its_variables(template: dict[str, Any], good: bool) -> None:
    for model in (WorkPoolCreate, WorkPoolUpdate):
        body = {"base_job_template": template, **({"name": "p"} if model is WorkPoolCreate else {})}
        if good:
            assert model.model_validate(body).model_dump()["base_job_template"] == template
        else:
            with pytest.raises(ValidationError):
                model.model_validate(body)


@pytest.mark.parametrize("wrong", [".", ".."])
def test_pools_and_their_queues_have_names_by_which_they_are_reached(wrong: str) -> None:
    """Nothing else of it stands in a URL, and clients take such a name for a place in the path; flows are reached by their ids too."""
    for model in (WorkPoolCreate, WorkQueueCreate):
        with pytest.raises(ValidationError, match="nothing of that name could be reached"):
            model.model_validate({"name": wrong})
        for right in ("...", ".a", "a.", "a..b"):
            assert model.model_validate({"name": right}).model_dump()["name"] == right
    assert FlowCreate.model_validate({"name": wrong}).name == wrong


def test_a_pools_name_is_not_blank() -> None:
    for wrong in ("", " ", "''", '" "'):
        with pytest.raises(ValidationError):
            WorkPoolCreate.model_validate({"name": wrong})


@pytest.mark.parametrize("value", ["text", 7, 1.5, True, None, {"a": [1]}, [1, "b"]])
def test_a_variable_keeps_the_type_of_its_value(value: Any) -> None:
    taken = VariableCreate.model_validate({"name": "a_b-1", "value": value})
    assert (type(taken.value), taken.value) == (type(value), value)


def test_a_variable_is_bounded() -> None:
    VariableCreate.model_validate({"name": "n" * 255, "value": "v" * 4_998})
    for wrong in (
        {"name": "n" * 256, "value": 1},
        {"name": "Upper", "value": 1},
        {"name": "line\n", "value": 1},
        {"name": "n", "value": "v" * 4_999},
        {"name": "n"},
    ):
        with pytest.raises(ValidationError):
            VariableCreate.model_validate(wrong)


def test_a_block_document_has_a_name_or_is_anonymous() -> None:
    ids = {"block_schema_id": ID, "block_type_id": ID}
    assert BlockDocumentCreate.model_validate({**ids, "name": "my-block"}).name == "my-block"
    assert BlockDocumentCreate.model_validate({**ids, "is_anonymous": True}).name is None
    for wrong in ({}, {"name": "My Block"}, {"name": ""}, {"name": "line\n"}):
        with pytest.raises(ValidationError):
            BlockDocumentCreate.model_validate({**ids, **wrong})
    with pytest.raises(ValidationError):
        BlockTypeCreate.model_validate({"name": "N", "slug": "Not_A_Slug"})


def test_the_metadata_of_an_artifact_is_cut() -> None:
    taken = ArtifactCreate.model_validate({"metadata_": {"short": "s" * 500, "long": "l" * 501}}).metadata_
    assert taken == {"short": "s" * 500, "long": "l" * 500 + "..."}
    with pytest.raises(ValidationError):
        ArtifactCreate.model_validate({"key": "Key"})


# ---- events and automations


def event(**changes: Any) -> dict[str, Any]:
    return {"id": ID, "occurred": "2026-01-01T00:00:00Z", "event": "e", "resource": RESOURCE, **changes}


def test_an_event_is_bounded() -> None:
    related = {**RESOURCE, "prefect.resource.role": "flow"}
    full = {f"label-{number}": "" for number in range(events.MAX_LABELS - 1)} | RESOURCE
    Event.model_validate(event(event="e" * 1_024, related=[related] * 100, resource=full))
    for wrong in (
        {"event": "e" * 1_025},
        {"related": [related] * 101},
        {"related": [RESOURCE]},
        {"related": [{**related, "prefect.resource.role": ""}]},
        {"resource": {}},
        {"resource": {"prefect.resource.id": ""}},
        {"resource": {**full, "one-more": ""}},
        {"resource": {**RESOURCE, "n": 1}},
    ):
        with pytest.raises(ValidationError):
            Event.model_validate(event(**wrong))


def automation(trigger: dict[str, Any], *actions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "trigger": {"type": "event", "posture": "Reactive", **trigger},
        "actions": list(actions),
        **changes,
    }


def test_a_proactive_trigger_waits_ten_seconds_at_least() -> None:
    def within(seconds: float | None) -> timedelta:
        given_within = {} if seconds is None else {"within": seconds}
        return EventTrigger.model_validate({"posture": "Proactive", **given_within}).within

    assert [within(one).total_seconds() for one in (None, 0, 10, 60)] == [10, 10, 10, 60]
    for wrong in (9.9, -1):
        with pytest.raises(ValidationError):
            within(wrong)
    with pytest.raises(ValidationError):
        EventTrigger.model_validate({"posture": "Reactive", "within": -1})


def test_a_compound_trigger_can_be_met() -> None:
    one = {"posture": "Reactive"}
    for require, good in ((1, True), (2, True), (3, False), (0, False), ("any", True), ("some", False)):
        body = automation({"type": "compound", "triggers": [one, one], "within": None, "require": require})
        del body["trigger"]["posture"]
        if good:
            AutomationCreate.model_validate(body)
        else:
            with pytest.raises(ValidationError):
                AutomationCreate.model_validate(body)


def test_an_automation_does_not_feed_itself() -> None:
    running = {"expect": ["prefect.flow-run.Running"]}
    failed = {"expect": ["prefect.flow-run.Failed"]}
    of_one_flow = {"match_related": {"prefect.resource.id": f"prefect.flow.{ID}"}}
    inferred = {"type": "run-deployment", "source": "inferred"}
    chosen = {"type": "run-deployment", "deployment_id": ID}
    for good in (
        automation(running, inferred, enabled=False),
        automation(failed, inferred),
        automation({**running, **of_one_flow}, chosen),
        automation({**running, "posture": "Proactive", "within": 60}, inferred),
    ):
        AutomationCreate.model_validate(good)
    for wrong in (
        automation({**running, **of_one_flow}, inferred),
        automation(running, chosen),
        automation({**running, "match": {"prefect.resource.id": "prefect.flow-run.*"}}, chosen),
    ):
        with pytest.raises(ValidationError, match="without end"):
            AutomationCreate.model_validate(wrong)


def test_an_action_names_its_object_or_infers_it() -> None:
    for good in (
        {"type": "pause-work-pool", "work_pool_id": ID},
        {"type": "pause-work-pool", "source": "inferred"},
        {"type": "call-webhook", "block_document_id": ID, "payload": {"message": "m"}},
        {"type": "call-webhook", "block_document_id": ID, "payload": None},
        {"type": "change-flow-run-state", "state": "FAILED"},
    ):
        (taken,) = AutomationCreate.model_validate(automation({}, good)).actions
        assert taken.type == good["type"]
    for wrong in (
        {"type": "pause-work-pool"},
        {"type": "pause-work-pool", "source": "inferred", "work_pool_id": ID},
        {"type": "run-deployment", "deployment_id": ID, "schedule_after": -1},
        {"type": "launch-rocket"},
    ):
        with pytest.raises(ValidationError):
            AutomationCreate.model_validate(automation({}, wrong))


# ---- filters


def test_filters_are_bounded() -> None:
    TextAnyLike.model_validate({"any_": ["x"] * MAX_VALUES, "like_": "x" * MAX_PATTERN_CHARS})
    for wrong in ({"any_": ["x"] * (MAX_VALUES + 1)}, {"like_": "x" * (MAX_PATTERN_CHARS + 1)}):
        with pytest.raises(ValidationError):
            TextAnyLike.model_validate(wrong)
    WorkQueueFilterName.model_validate({"startswith_": ["x"] * MAX_ALTERNATIVES})
    with pytest.raises(ValidationError):
        WorkQueueFilterName.model_validate({"startswith_": ["x"] * (MAX_ALTERNATIVES + 1)})
    for many in ("related", "any_resource"):
        EventFilter.model_validate({many: [{}] * MAX_ALTERNATIVES})
        with pytest.raises(ValidationError):
            EventFilter.model_validate({many: [{}] * (MAX_ALTERNATIVES + 1)})
    with pytest.raises(ValidationError):
        LogFilterTextSearch.model_validate({"query": "q" * 201})


def test_a_filter_takes_what_the_client_sends() -> None:
    sent = {
        "id": {"any_": [ID]},
        "name": None,
        "state": {"type": {"any_": ["CANCELLING"]}, "name": None},
        "tags": {"all_": []},
    }
    taken = FlowRunFilter.model_validate(sent)
    assert taken.id is not None
    assert taken.id.any_ == [ID]
    assert (taken.operator, taken.name) == ("and_", None)
    assert TaskRunFilterFlowRunId.model_validate({}).is_null_ is False


def test_an_event_filter_looks_back_half_a_year() -> None:
    span = EventFilter.model_validate({"id": {"id": []}, "any_resource": {"id": ["prefect.flow-run.1"]}}).occurred
    assert timedelta(days=180) <= span.until - span.since < timedelta(days=181)
