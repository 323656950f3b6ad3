"""Every row of the task run tables, by name, in the tables' order."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.clock import iso
from managedd.model.flow_runs import ProposedState, TagLimit, TaskRunFacts, task_policy_facts
from managedd.model.states import TERMINAL, State, StateType, default_name
from managedd.orchestration.rules import (
    BACKGROUND_TASK_RULES,
    TASK_RULES,
    Decision,
    Effect,
    Status,
    decide_task,
    initial_task,
)
from managedd.orchestration.task_rules import MAX_CACHE_KEY_LENGTH, retry_delay_seconds

NOW_US = 1_800_000_000_000_000
RESULT = {"type": "reference", "storage_key": "a/b"}

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLING, CANCELLED, PAUSED = StateType.CANCELLING, StateType.CANCELLED, StateType.PAUSED


def at(seconds: float) -> str:
    return iso(NOW_US + int(seconds * 1_000_000))


def in_state(type_: StateType, name: str = "", *, data: Any = None, **details: Any) -> State:
    return State(
        type=type_, name=name or default_name(type_), id="now", timestamp_us=NOW_US - 1, data=data, details=details
    )


def facts(current: State | StateType | None, **more: Any) -> TaskRunFacts:
    """A task run of a running flow run, unless said otherwise."""
    if isinstance(current, StateType):
        current = in_state(current)
    settings: dict[str, Any] = {
        "flow_run_id": "flow",
        "flow_run_state": in_state(RUNNING),
        "parent_run_count": 1,
        **more,
    }
    return TaskRunFacts(now_us=NOW_US, run_id="task", current=current, **settings)


def to(type_: StateType, name: str = "", **more: Any) -> ProposedState:
    return ProposedState(type=type_, name=name, **more)


def accepted(decision: Decision) -> ProposedState:
    assert decision.status is Status.ACCEPT
    assert decision.details == {"type": "accept_details"}
    assert decision.state is not None
    return decision.state


def replaced(decision: Decision) -> ProposedState:
    assert decision.status is Status.REJECT
    assert decision.details["type"] == "reject_details"
    assert decision.write
    assert decision.state is not None
    return decision.state


def kept(decision: Decision, status: Status) -> str:
    assert decision.status is status
    assert decision.details["type"] == f"{status.value.lower()}_details"
    assert not decision.write
    assert decision.state is None
    return str(decision.details["reason"])


def test_tables_hold_the_rows_of_prefects_policies_in_their_order() -> None:
    # ReleaseTaskConcurrencySlots has no row: slots are counted from rows.
    ending = [
        "WaitForScheduledTime",
        "RetryFailedTasks",
        "RenameReruns",
        "UpdateFlowRunTrackerOnTasks",
        "CacheInsertion",
    ]
    assert [rule.name for rule in TASK_RULES] == [
        "CacheRetrieval",
        "HandleTaskTerminalStateTransitions",
        "PreventRunningTasksFromStoppedFlows",
        "SecureTaskConcurrencySlots",
        "CopyScheduledTime",
        *ending,
    ]
    assert [rule.name for rule in BACKGROUND_TASK_RULES] == [
        "PreventPendingTransitions",
        "CacheRetrieval",
        "HandleTaskTerminalStateTransitions",
        "CopyScheduledTime",
        "CopyTaskParametersID",
        *ending,
        "EnqueueScheduledTasks",
    ]


def test_a_state_knows_its_task_run_and_flow_run() -> None:
    assert accepted(decide_task(facts(PENDING), to(RUNNING))).details == {"flow_run_id": "flow", "task_run_id": "task"}
    background = accepted(decide_task(facts(None, flow_run_id=None), to(PENDING)))
    assert background.details == {"task_run_id": "task"}


# --- CacheRetrieval


def test_a_cached_result_saves_the_run() -> None:
    cached = in_state(COMPLETED, data=RESULT, cache_key="k", transition_id="theirs")
    decision = decide_task(facts(PENDING, cached_state=cached), to(RUNNING, details={"cache_key": "k"}))
    state = replaced(decision)
    assert (state.type, state.name, state.data) == (COMPLETED, "Cached", RESULT)
    assert "transition_id" not in state.details


def test_a_cached_result_is_passed_by_on_refresh_or_without_a_key() -> None:
    cached = in_state(COMPLETED, data=RESULT)
    wants_new = {"cache_key": "k", "refresh_cache": True}
    assert accepted(decide_task(facts(PENDING, cached_state=cached), to(RUNNING, details=wants_new))).type is RUNNING
    assert accepted(decide_task(facts(PENDING, cached_state=cached), to(RUNNING))).type is RUNNING


# --- HandleTaskTerminalStateTransitions


@pytest.mark.parametrize("current", sorted(TERMINAL))
@pytest.mark.parametrize("proposed", [CANCELLING, PAUSED, CRASHED])
def test_a_terminal_task_is_not_cancelled_paused_or_crashed(current: StateType, proposed: StateType) -> None:
    assert kept(decide_task(facts(current), to(proposed)), Status.ABORT) == f"Run is already {current.value}."


@pytest.mark.parametrize("proposed", [SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED])
def test_a_completed_task_with_a_result_stays_completed(proposed: StateType) -> None:
    decision = decide_task(facts(in_state(COMPLETED, data=RESULT)), to(proposed))
    assert kept(decision, Status.REJECT) == "This run is already completed."


def test_a_rerun_of_a_task_has_all_its_retries() -> None:
    decision = decide_task(facts(FAILED, run_count=3, flow_run_run_count=1), to(RUNNING))
    assert accepted(decision).name == "Running"
    assert decision.resets_run_count
    assert not decide_task(facts(FAILED, run_count=3), to(COMPLETED)).resets_run_count


def test_a_rerun_in_a_new_attempt_of_the_flow_is_retrying() -> None:
    decision = decide_task(facts(FAILED, run_count=3, flow_run_run_count=1, parent_run_count=2), to(RUNNING))
    assert accepted(decision).name == "Retrying"
    assert decision.flow_run_run_count == 2


def test_a_refused_rerun_keeps_its_count() -> None:
    decision = decide_task(facts(FAILED, run_count=3, flow_run_state=in_state(FAILED)), to(RUNNING))
    kept(decision, Status.ABORT)
    assert not decision.resets_run_count


# --- PreventRunningTasksFromStoppedFlows


@pytest.mark.parametrize("parent", [None, *(in_state(t) for t in StateType if t not in {RUNNING, PAUSED})])
def test_a_task_does_not_start_in_a_stopped_flow(parent: State | None) -> None:
    reason = kept(decide_task(facts(PENDING, flow_run_state=parent), to(RUNNING)), Status.ABORT)
    assert reason == "The enclosing flow must be running to begin task execution."


def test_a_task_of_a_paused_flow_waits_with_it() -> None:
    parent = in_state(PAUSED, pause_timeout=at(60), pause_reschedule=True)
    state = replaced(decide_task(facts(PENDING, flow_run_state=parent), to(RUNNING)))
    assert (state.type, state.name) == (PAUSED, "NotReady")
    assert (state.details["pause_timeout"], state.details["pause_reschedule"]) == (at(60), True)


def test_a_task_of_no_flow_run_starts_by_itself() -> None:
    accepted(decide_task(facts(PENDING, flow_run_id=None, flow_run_state=None), to(RUNNING)))
    gone = decide_task(facts(PENDING, flow_run_exists=False, flow_run_state=None), to(RUNNING))
    accepted(gone)
    assert gone.flow_run_run_count is None


# --- SecureTaskConcurrencySlots


def test_a_task_waits_for_a_slot_of_its_tags() -> None:
    limits = (TagLimit(tag="db", limit=2, slots_taken=2), TagLimit(tag="gpu", limit=1, slots_taken=0))
    decision = decide_task(facts(PENDING, tag_limits=limits), to(RUNNING))
    assert "db" in kept(decision, Status.WAIT)
    assert "gpu" not in decision.details["reason"]
    assert decision.details["delay_seconds"] == 30
    accepted(decide_task(facts(PENDING, tag_limits=limits[1:]), to(RUNNING)))


def test_a_tag_limit_of_zero_aborts() -> None:
    limits = (TagLimit(tag="db", limit=0, slots_taken=0),)
    assert '"db"' in kept(decide_task(facts(PENDING, tag_limits=limits), to(RUNNING)), Status.ABORT)


def test_a_cached_result_needs_no_slot() -> None:
    limits = (TagLimit(tag="db", limit=1, slots_taken=1),)
    cached = in_state(COMPLETED, data=RESULT)
    decision = decide_task(
        facts(PENDING, tag_limits=limits, cached_state=cached), to(RUNNING, details={"cache_key": "k"})
    )
    assert replaced(decision).name == "Cached"


# --- CopyScheduledTime, WaitForScheduledTime


def test_pending_carries_the_scheduled_time_on_and_running_waits_for_it() -> None:
    state = accepted(decide_task(facts(in_state(SCHEDULED, scheduled_time=at(5))), to(PENDING)))
    assert state.details["scheduled_time"] == at(5)
    waiting = decide_task(facts(in_state(PENDING, scheduled_time=at(5))), to(RUNNING))
    kept(waiting, Status.WAIT)
    assert waiting.details["delay_seconds"] == 5


# --- RetryFailedTasks


@pytest.mark.parametrize(
    ("delay", "run_count", "seconds"),
    [(None, 1, 0), (20, 1, 20), (2.5, 1, 2.5), ((1, 2, 3), 1, 1), ((1, 2, 3), 2, 2), ((1, 2), 3, 2), ((), 1, 0)],
)
def test_a_failure_is_retried_after_its_delay(delay: Any, run_count: int, seconds: float) -> None:
    trying = facts(RUNNING, retries=3, run_count=run_count, retry_delay_seconds=delay)
    decision = decide_task(trying, to(FAILED, message="boom", data={"type": "unpersisted"}))
    state = replaced(decision)
    assert decision.details["reason"] == "Retrying"
    assert (state.type, state.name, state.message) == (SCHEDULED, "AwaitingRetry", "boom")
    assert state.data == {"type": "unpersisted"}
    assert state.details["scheduled_time"] == at(seconds)


@pytest.mark.parametrize(("retries", "run_count"), [(None, 1), (0, 1), (2, 3)])
def test_a_failure_without_retries_left_is_a_failure(retries: int | None, run_count: int) -> None:
    assert accepted(decide_task(facts(RUNNING, retries=retries, run_count=run_count), to(FAILED))).type is FAILED


def test_a_failure_that_is_not_retriable_is_a_failure() -> None:
    trying = facts(RUNNING, retries=3, run_count=1)
    assert accepted(decide_task(trying, to(FAILED, details={"retriable": False}))).type is FAILED
    assert replaced(decide_task(trying, to(FAILED, details={"retriable": None}))).name == "AwaitingRetry"


def test_jitter_spreads_runs_and_repeats_itself() -> None:
    spread = [
        retry_delay_seconds(
            TaskRunFacts(
                now_us=NOW_US,
                run_id=str(i),
                current=None,
                run_count=1,
                retry_delay_seconds=100,
                retry_jitter_factor=0.5,
            )
        )
        for i in range(300)
    ]
    assert all(50 <= delay <= 150 for delay in spread)
    assert min(spread) < 60
    assert max(spread) > 140
    assert 90 < sum(spread) / len(spread) < 110
    assert len(set(spread)) == len(spread)
    one = facts(RUNNING, run_count=1, retry_delay_seconds=100, retry_jitter_factor=0.5)
    assert retry_delay_seconds(one) == retry_delay_seconds(one)


def test_jitter_beyond_the_delay_never_goes_back_in_time() -> None:
    for i in range(100):
        wild = facts(RUNNING, run_count=i, retry_delay_seconds=10, retry_jitter_factor=9)
        assert 0 <= retry_delay_seconds(wild) <= 100


# --- RenameReruns, UpdateFlowRunTrackerOnTasks


def test_reruns_are_named_for_what_they_are() -> None:
    assert accepted(decide_task(facts(PENDING, run_count=0), to(RUNNING))).name == "Running"
    assert accepted(decide_task(facts(PENDING, run_count=1), to(RUNNING))).name == "Rerunning"
    retry = in_state(SCHEDULED, "AwaitingRetry", scheduled_time=at(-1))
    assert accepted(decide_task(facts(retry, run_count=1), to(RUNNING))).name == "Retrying"
    assert accepted(decide_task(facts(None, run_count=1), to(RUNNING))).name == "Running"


def test_a_running_task_knows_the_attempt_of_its_flow() -> None:
    assert decide_task(facts(PENDING, parent_run_count=4), to(RUNNING)).flow_run_run_count == 4
    assert decide_task(facts(RUNNING, parent_run_count=4), to(COMPLETED)).flow_run_run_count is None


# --- CacheInsertion


def test_a_result_with_a_cache_key_is_remembered() -> None:
    assert decide_task(facts(RUNNING), to(COMPLETED, details={"cache_key": "k"})).effects == {Effect.CACHE_RESULT}
    assert not decide_task(facts(RUNNING), to(COMPLETED)).effects


def test_a_cache_key_too_long_is_refused_and_the_result_kept() -> None:
    fits, too_long = "k" * MAX_CACHE_KEY_LENGTH, "k" * (MAX_CACHE_KEY_LENGTH + 1)
    accepted(decide_task(facts(RUNNING), to(COMPLETED, details={"cache_key": fits})))
    decision = decide_task(facts(RUNNING), to(COMPLETED, data=RESULT, details={"cache_key": too_long}))
    state = replaced(decision)
    assert (state.type, state.data) == (COMPLETED, RESULT)
    assert "cache_key" not in state.details
    assert not decision.effects


# --- background tasks


def test_a_background_task_is_taken_by_one_worker() -> None:
    deferred = {"deferred": True}
    accepted(decide_task(facts(SCHEDULED, flow_run_id=None), to(PENDING, details=deferred)))
    for force in (False, True):
        taken = decide_task(facts(PENDING, flow_run_id=None), to(PENDING, details=deferred), force=force)
        kept(taken, Status.ABORT)


def test_a_background_task_is_handed_out_when_scheduled() -> None:
    deferred = {"deferred": True}
    assert decide_task(facts(None), to(SCHEDULED, details=deferred)).effects == {Effect.ENQUEUE_TASK}
    assert initial_task(facts(None), to(SCHEDULED, details=deferred)).effects == {Effect.ENQUEUE_TASK}
    assert not decide_task(facts(None), to(SCHEDULED)).effects
    assert not decide_task(facts(SCHEDULED), to(PENDING, details=deferred)).effects


@pytest.mark.parametrize(("current", "proposed"), [(SCHEDULED, PENDING), (PENDING, RUNNING)])
def test_a_background_tasks_parameters_travel_with_it(current: StateType, proposed: StateType) -> None:
    before = in_state(current, task_parameters_id="p")
    decision = decide_task(facts(before), to(proposed, details={"deferred": True}))
    assert accepted(decision).details["task_parameters_id"] == "p"
    assert decision.copied_details["task_parameters_id"] == "p"
    own = {"deferred": True, "task_parameters_id": "q"}
    assert accepted(decide_task(facts(before), to(proposed, details=own))).details["task_parameters_id"] == "q"


def test_a_background_task_runs_without_its_flow() -> None:
    orphan = facts(PENDING, flow_run_state=in_state(COMPLETED))
    accepted(decide_task(orphan, to(RUNNING, details={"deferred": True})))


def test_a_background_task_keeps_the_rules_of_every_task() -> None:
    def deferred(known: TaskRunFacts, type_: StateType, **details: Any) -> Decision:
        return decide_task(known, to(type_, details={"deferred": True, **details}))

    cached = in_state(COMPLETED, data=RESULT)
    assert replaced(deferred(facts(PENDING, cached_state=cached), RUNNING, cache_key="k")).name == "Cached"
    kept(deferred(facts(in_state(COMPLETED, data=RESULT)), RUNNING), Status.REJECT)
    copied = accepted(deferred(facts(in_state(SCHEDULED, scheduled_time=at(5))), PENDING))
    assert copied.details["scheduled_time"] == at(5)
    kept(deferred(facts(in_state(PENDING, scheduled_time=at(5))), RUNNING), Status.WAIT)
    assert replaced(deferred(facts(RUNNING, retries=1, run_count=1), FAILED)).name == "AwaitingRetry"
    again = deferred(facts(PENDING, run_count=1, parent_run_count=2), RUNNING)
    assert (accepted(again).name, again.flow_run_run_count) == ("Rerunning", 2)
    assert deferred(facts(RUNNING), COMPLETED, cache_key="k").effects == {Effect.CACHE_RESULT}


# --- force and first states


@pytest.mark.parametrize("current", [None, *StateType])
@pytest.mark.parametrize("proposed", list(StateType))
def test_force_passes_everything(current: StateType | None, proposed: StateType) -> None:
    stopped = facts(current, flow_run_state=None, retries=3)
    assert accepted(decide_task(stopped, to(proposed), force=True)).type is proposed
    assert accepted(initial_task(stopped, to(proposed))).type is proposed


def test_policy_facts() -> None:
    policy = {"retries": 2, "retry_delay": [1, 2.5], "retry_jitter_factor": 0.3}
    assert task_policy_facts(policy) == {
        "retries": 2,
        "retry_delay_seconds": (1, 2.5),
        "retry_jitter_factor": 0.3,
    }
    assert task_policy_facts({}) == {"retries": None, "retry_delay_seconds": None, "retry_jitter_factor": None}
