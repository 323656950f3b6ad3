"""Every row of the flow run tables, by name, in the tables' order."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.clock import iso
from managedd.model.flow_runs import CollisionStrategy, FlowRunFacts, ProposedState, flow_policy_facts, iso_after
from managedd.model.states import OCCUPYING, TERMINAL, State, StateType, default_name
from managedd.orchestration.rules import (
    FLOW_RULES,
    LATE_RULES,
    MINIMAL_FLOW_RULES,
    Decision,
    Effect,
    Status,
    decide,
    decide_late,
    initial,
    pause_expired,
    pause_expired_state,
    resume_state,
)

NOW_US = 1_800_000_000_000_000
SECOND_US = 1_000_000
RESULT = {"type": "reference", "storage_key": "a/b"}
FREED = {Effect.EMIT_EVENT, Effect.FREE_SLOT}

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLING, CANCELLED, PAUSED = StateType.CANCELLING, StateType.CANCELLED, StateType.PAUSED


def at(seconds: float) -> str:
    """The ISO time `seconds` from now."""
    return iso(NOW_US + int(seconds * SECOND_US))


def in_state(type_: StateType, name: str = "", *, data: Any = None, **details: Any) -> State:
    return State(
        type=type_,
        name=name or default_name(type_),
        id="now",
        timestamp_us=NOW_US - SECOND_US,
        data=data,
        details=details,
    )


def facts(current: State | StateType | None, **more: Any) -> FlowRunFacts:
    if isinstance(current, StateType):
        current = in_state(current)
    return FlowRunFacts(now_us=NOW_US, run_id="run", current=current, **more)


def to(type_: StateType, name: str = "", **more: Any) -> ProposedState:
    return ProposedState(type=type_, name=name, **more)


def accepted(decision: Decision) -> ProposedState:
    assert decision.status is Status.ACCEPT
    assert decision.details == {"type": "accept_details"}
    assert decision.write
    assert decision.state is not None
    return decision.state


def replaced(decision: Decision, reason: str) -> ProposedState:
    assert decision.status is Status.REJECT
    assert decision.details == {"type": "reject_details", "reason": reason}
    assert decision.write
    assert decision.state is not None
    return decision.state


def kept(decision: Decision, status: Status, reason: str) -> None:
    assert decision.status is status
    assert decision.details == {"type": f"{status.value.lower()}_details", "reason": reason}
    assert not decision.write
    assert decision.state is None
    assert not decision.effects
    assert not decision.policy_changes


def test_tables_hold_the_rows_of_prefects_policies_in_their_order() -> None:
    assert [rule.name for rule in FLOW_RULES] == [
        "PreserveDeploymentConcurrencyLeaseId",
        "PreventDuplicateTransitions",
        "HandleFlowTerminalStateTransitions",
        "EnforceCancellingToCancelledTransition",
        "BypassCancellingFlowRunsWithNoInfra",
        "PreventPendingTransitions",
        "ValidateDeploymentConcurrencyAtRunning",
        "SecureFlowConcurrencySlots",
        "RemoveDeploymentConcurrencyLeaseForOldClientVersions",
        "EnsureOnlyScheduledFlowsMarkedLate",
        "HandlePausingFlows",
        "HandleResumingPausedFlows",
        "CopyScheduledTime",
        "WaitForScheduledTime",
        "RetryFailedFlows",
        "InstrumentFlowRunStateTransitions",
        "ReleaseFlowConcurrencySlots",
    ]
    assert [rule.name for rule in MINIMAL_FLOW_RULES] == [
        "PreventResultDataLoss",
        "BypassCancellingFlowRunsWithNoInfra",
        "InstrumentFlowRunStateTransitions",
        "ReleaseFlowConcurrencySlots",
    ]
    assert [rule.name for rule in LATE_RULES] == [
        "EnsureOnlyScheduledFlowsMarkedLate",
        "EnforceDeploymentConcurrencyOnLate",
        "InstrumentFlowRunStateTransitions",
    ]


# --- what every decision does


def test_an_accepted_state_is_named_and_knows_its_run() -> None:
    state = accepted(decide(facts(PENDING), to(RUNNING, message="go", data={"x": 1})))
    assert (state.type, state.name, state.message, state.data) == (RUNNING, "Running", "go", {"x": 1})
    assert state.details == {"flow_run_id": "run"}


def test_a_subflows_state_names_the_task_run_that_stands_for_it() -> None:
    state = accepted(decide(facts(PENDING, parent_task_run_id="task"), to(RUNNING)))
    assert state.details == {"flow_run_id": "run", "task_run_id": "task"}


def test_a_scheduled_state_without_a_time_is_scheduled_for_now() -> None:
    assert accepted(decide(facts(None), to(SCHEDULED))).details["scheduled_time"] == at(0)
    later = to(SCHEDULED, details={"scheduled_time": at(9)})
    assert accepted(decide(facts(None), later)).details["scheduled_time"] == at(9)


def test_details_that_the_rules_do_not_know_are_kept() -> None:
    keyset = {"response": "r", "schema": "s"}
    proposed = to(
        PAUSED, details={"run_input_keyset": keyset, "pause_key": "1", "pause_timeout": at(60), "traceparent": "t"}
    )
    state = accepted(decide(facts(RUNNING), proposed))
    assert state.details["run_input_keyset"] == keyset
    assert state.details["pause_timeout"] == at(60)
    assert state.details["traceparent"] == "t"


# --- 1 PreserveDeploymentConcurrencyLeaseId


def test_lease_id_is_copied_when_the_client_sends_none() -> None:
    current = in_state(RUNNING, deployment_concurrency_lease_id="lease")
    decision = decide(facts(current), to(COMPLETED, details={"deployment_concurrency_lease_id": None}))
    assert accepted(decision).details["deployment_concurrency_lease_id"] == "lease"
    assert decision.copied_details == {"deployment_concurrency_lease_id": "lease"}


def test_lease_id_of_the_client_wins() -> None:
    current = in_state(RUNNING, deployment_concurrency_lease_id="old")
    decision = decide(facts(current), to(COMPLETED, details={"deployment_concurrency_lease_id": "new"}))
    assert accepted(decision).details["deployment_concurrency_lease_id"] == "new"
    assert decision.copied_details == {}


# --- 2 PreventDuplicateTransitions


def test_the_same_transition_id_is_made_once() -> None:
    current = in_state(RUNNING, transition_id="x")
    kept(
        decide(facts(current), to(RUNNING, details={"transition_id": "x"})),
        Status.REJECT,
        "This run has already made this state transition.",
    )
    accepted(decide(facts(current), to(RUNNING, details={"transition_id": "y"})))
    accepted(decide(facts(RUNNING), to(RUNNING)))


def test_a_failure_sent_twice_costs_one_retry_only() -> None:
    proposed = to(FAILED, details={"transition_id": "x"})
    first = replaced(decide(facts(RUNNING, retries=1, run_count=1), proposed), "Retrying")
    current = in_state(first.type, first.name, **first.details)
    again = decide(facts(current, retries=1, run_count=1), proposed)
    kept(again, Status.REJECT, "This run has already made this state transition.")


# --- 3 HandleFlowTerminalStateTransitions


@pytest.mark.parametrize("current", sorted(TERMINAL))
@pytest.mark.parametrize("proposed", [CANCELLING, PAUSED, CRASHED])
def test_a_terminal_run_is_not_cancelled_paused_or_crashed(current: StateType, proposed: StateType) -> None:
    kept(decide(facts(current), to(proposed)), Status.ABORT, f"Run is already in terminal state {current.value}.")


@pytest.mark.parametrize("proposed", [SCHEDULED, PENDING, RUNNING])
def test_a_completed_run_with_a_result_stays_completed(proposed: StateType) -> None:
    current = in_state(COMPLETED, data=RESULT)
    kept(decide(facts(current, deployment_id="d"), to(proposed)), Status.REJECT, "Run is already COMPLETED.")


def test_a_completed_run_keeps_its_result() -> None:
    current = in_state(COMPLETED, data=RESULT)
    decision = decide(facts(current), to(COMPLETED, data={"type": "unpersisted"}))
    assert (decision.status, decision.write) == (Status.REJECT, False)
    accepted(decide(facts(current), to(COMPLETED, data=RESULT)))


def test_a_terminal_run_without_deployment_is_not_rescheduled() -> None:
    kept(
        decide(facts(FAILED), to(SCHEDULED)),
        Status.ABORT,
        "Cannot reschedule a run without an associated deployment.",
    )


@pytest.mark.parametrize(("proposed", "retry_type"), [(SCHEDULED, "reschedule"), (RUNNING, None), (PENDING, None)])
def test_a_rerun_starts_with_a_clean_policy(proposed: StateType, retry_type: str | None) -> None:
    decision = decide(facts(FAILED, deployment_id="d", pause_keys=frozenset({"1"})), to(proposed))
    accepted(decision)
    assert decision.policy_changes == {"resuming": False, "pause_keys": [], "retry_type": retry_type}


def test_a_rerun_of_a_client_without_pauses_leaves_the_policy_alone() -> None:
    assert not decide(facts(FAILED, deployment_id="d", api_version=(0, 8, 3)), to(SCHEDULED)).policy_changes


def test_a_refused_rerun_leaves_the_policy_alone() -> None:
    full = facts(FAILED, deployment_id="d", concurrency_limit=1, slots_taken=1, pause_keys=frozenset({"1"}))
    decision = decide(full, to(PENDING))
    replaced(decision, "Deployment concurrency limit reached.")
    assert not decision.policy_changes


# --- 4 EnforceCancellingToCancelledTransition


@pytest.mark.parametrize("proposed", [type_ for type_ in StateType if type_ is not CANCELLED])
def test_a_cancelling_run_becomes_cancelled_only(proposed: StateType) -> None:
    kept(
        decide(facts(CANCELLING), to(proposed)),
        Status.REJECT,
        f"This run is being cancelled and cannot become {proposed.value}.",
    )


def test_a_cancelling_run_becomes_cancelled() -> None:
    assert decide(facts(CANCELLING, deployment_id="d"), to(CANCELLED)).effects == FREED


# --- 5 BypassCancellingFlowRunsWithNoInfra


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("current", "pid", "word"),
    [
        (in_state(SCHEDULED), None, "Scheduled"),
        (in_state(SCHEDULED, "Resuming"), "container", "Scheduled"),
        (in_state(PAUSED, "Suspended", pause_reschedule=True), "container", "Suspended"),
    ],
)
def test_what_runs_nowhere_is_cancelled_at_once(current: State, pid: str | None, word: str, force: bool) -> None:
    decision = decide(facts(current, infrastructure_pid=pid), to(CANCELLING), force=force)
    state = replaced(decision, f"{word} flow run has no infrastructure to terminate.")
    assert (state.type, state.name) == (CANCELLED, "Cancelled")
    assert decision.effects == {Effect.EMIT_EVENT}


@pytest.mark.parametrize("current", [in_state(SCHEDULED, "AwaitingRetry"), in_state(PAUSED), in_state(PENDING)])
def test_what_runs_somewhere_is_cancelling_first(current: State) -> None:
    accepted(decide(facts(current, infrastructure_pid="container"), to(CANCELLING)))


# --- 6 PreventPendingTransitions


@pytest.mark.parametrize("current", [PENDING, RUNNING, CANCELLED])
def test_pending_is_taken_once(current: StateType) -> None:
    kept(
        decide(facts(current), to(PENDING)),
        Status.ABORT,
        f"This run is in a {current.value} state and cannot transition to a PENDING state.",
    )


def test_a_launcher_tells_its_progress_in_pendings_name() -> None:
    current = in_state(PENDING, scheduled_time=at(-5), deployment_concurrency_lease_id="lease")
    decision = decide(facts(current), to(PENDING, "Submitting"))
    state = accepted(decision)
    assert state.name == "Submitting"
    assert state.details["scheduled_time"] == at(-5)
    assert state.details["deployment_concurrency_lease_id"] == "lease"
    assert decision.copied_details == {"scheduled_time": at(-5), "deployment_concurrency_lease_id": "lease"}
    accepted(decide(facts(in_state(PENDING, "Submitting")), to(PENDING, "InfrastructurePending")))


def test_a_second_launcher_finds_pending_taken_whatever_the_first_has_reached() -> None:
    assert decide(facts(in_state(PENDING, "Submitting")), to(PENDING)).status is Status.ABORT
    assert decide(facts(in_state(PENDING, "Submitting")), to(PENDING, "Submitting")).status is Status.ABORT


# --- 7 ValidateDeploymentConcurrencyAtRunning


def test_a_pending_run_cannot_have_lost_its_slot() -> None:
    accepted(decide(facts(PENDING, deployment_id="d", concurrency_limit=1, slots_taken=1), to(RUNNING)))


def test_an_in_process_retry_waits_for_a_slot() -> None:
    current = in_state(SCHEDULED, "AwaitingRetry", scheduled_time=at(-1))
    decision = decide(facts(current, deployment_id="d", concurrency_limit=1, slots_taken=1), to(RUNNING))
    assert decision.status is Status.WAIT
    assert decision.details == {
        "type": "wait_details",
        "delay_seconds": 30,
        "reason": "Deployment concurrency limit reached.",
    }
    assert not decision.write
    accepted(decide(facts(current, deployment_id="d", concurrency_limit=1, slots_taken=0), to(RUNNING)))


def test_a_paused_process_runs_on_without_waiting_for_a_slot() -> None:
    accepted(decide(facts(PAUSED, deployment_id="d", concurrency_limit=1, slots_taken=1), to(RUNNING)))


# --- 8 SecureFlowConcurrencySlots


@pytest.mark.parametrize("current", [None, SCHEDULED, PAUSED, FAILED, CRASHED, COMPLETED])
def test_pending_needs_a_slot(current: StateType | None) -> None:
    if current is not PAUSED:
        accepted(decide(facts(current, deployment_id="d", concurrency_limit=2, slots_taken=1), to(PENDING)))
    full = decide(facts(current, deployment_id="d", concurrency_limit=2, slots_taken=2), to(PENDING))
    state = replaced(full, "Deployment concurrency limit reached.")
    assert (state.type, state.name) == (SCHEDULED, "AwaitingConcurrencySlot")
    assert state.details["scheduled_time"] == at(30)


def test_a_colliding_run_is_cancelled_where_the_deployment_says_so() -> None:
    full = facts(
        SCHEDULED,
        deployment_id="d",
        concurrency_limit=1,
        slots_taken=1,
        collision_strategy=CollisionStrategy.CANCEL_NEW,
    )
    state = replaced(decide(full, to(PENDING)), "Deployment concurrency limit reached.")
    assert (state.type, state.message) == (CANCELLED, "Deployment concurrency limit reached.")


def test_a_limit_of_zero_aborts() -> None:
    decision = decide(facts(SCHEDULED, deployment_id="d", concurrency_limit=0), to(PENDING))
    assert (decision.status, decision.write) == (Status.ABORT, False)


def test_a_run_whose_deployment_is_gone_aborts() -> None:
    gone = facts(SCHEDULED, deployment_id="d", deployment_exists=False)
    kept(decide(gone, to(PENDING)), Status.ABORT, "Deployment not found.")


def test_a_run_without_deployment_or_limit_needs_no_slot() -> None:
    accepted(decide(facts(SCHEDULED, concurrency_limit=1, slots_taken=1), to(PENDING)))
    accepted(decide(facts(SCHEDULED, deployment_id="d", slots_taken=99), to(PENDING)))


# --- 9 RemoveDeploymentConcurrencyLeaseForOldClientVersions


@pytest.mark.parametrize(
    ("version", "has_lease"),
    [
        ("3.8.8", True),
        ("3.4.11", True),
        ("3.4.11+2.gabc", True),
        ("3.4.10", False),
        ("2.20.3", False),
        (None, False),
        ("x", False),
        ("9" * 5000, False),
    ],
)
def test_an_old_client_is_not_handed_a_lease_to_renew(version: str | None, has_lease: bool) -> None:
    current = in_state(PENDING, deployment_concurrency_lease_id="lease")
    for proposed in (RUNNING, CANCELLING):
        state = accepted(decide(facts(current, client_version=version), to(proposed)))
        assert ("deployment_concurrency_lease_id" in state.details) is has_lease


# --- 10 EnsureOnlyScheduledFlowsMarkedLate


def test_only_scheduled_runs_get_late_and_only_once() -> None:
    assert accepted(decide(facts(SCHEDULED), to(SCHEDULED, "Late"))).name == "Late"
    kept(decide(facts(PENDING), to(SCHEDULED, "Late")), Status.REJECT, "Only a scheduled run can be late.")
    kept(decide(facts(in_state(SCHEDULED, "Late")), to(SCHEDULED, "Late")), Status.REJECT, "This run is late already.")
    accepted(decide(facts(in_state(SCHEDULED, "Late")), to(SCHEDULED)))


# --- 11 HandlePausingFlows


def test_only_a_running_run_pauses() -> None:
    kept(decide(facts(None), to(PAUSED)), Status.ABORT, "Cannot pause flows with no state.")
    kept(decide(facts(None), to(PAUSED, "Suspended")), Status.ABORT, "Cannot suspend flows with no state.")
    kept(
        decide(facts(PENDING), to(PAUSED)),
        Status.REJECT,
        "Cannot pause flows that are not currently running.",
    )


def test_a_pause_fires_once_per_key() -> None:
    decision = decide(facts(RUNNING, pause_keys=frozenset({"2"})), to(PAUSED, details={"pause_key": "1"}))
    accepted(decision)
    assert decision.policy_changes == {"pause_keys": ["1", "2"]}
    kept(
        decide(facts(RUNNING, pause_keys=frozenset({"1"})), to(PAUSED, details={"pause_key": "1"})),
        Status.REJECT,
        "This pause has already fired.",
    )


def test_a_pause_without_a_key_leaves_no_key() -> None:
    decision = decide(facts(RUNNING), to(PAUSED))
    accepted(decision)
    assert decision.policy_changes == {}


def test_only_deployed_top_level_runs_suspend() -> None:
    suspended = to(PAUSED, "Suspended", details={"pause_reschedule": True, "pause_key": "1"})
    kept(decide(facts(RUNNING), suspended), Status.ABORT, "Cannot suspend flows without a deployment.")
    kept(
        decide(facts(RUNNING, deployment_id="d", parent_task_run_id="t"), suspended),
        Status.ABORT,
        "Cannot suspend subflows.",
    )
    accepted(decide(facts(RUNNING, deployment_id="d"), suspended))


def test_a_pause_gives_the_slot_back() -> None:
    assert decide(facts(RUNNING, deployment_id="d"), to(PAUSED)).effects == FREED


# --- 12 HandleResumingPausedFlows


@pytest.mark.parametrize("proposed", [PENDING])
def test_a_paused_run_does_not_become_pending(proposed: StateType) -> None:
    kept(
        decide(facts(PAUSED), to(proposed)),
        Status.REJECT,
        "This run cannot transition to the PENDING state from the PAUSED state.",
    )


@pytest.mark.parametrize("proposed", [RUNNING, SCHEDULED, CANCELLING])
def test_leaving_a_pause_marks_the_run_as_resuming(proposed: StateType) -> None:
    decision = decide(facts(PAUSED), to(proposed))
    accepted(decision)
    assert decision.policy_changes == {"resuming": True}


@pytest.mark.parametrize("proposed", sorted(TERMINAL))
def test_a_paused_run_that_ends_is_not_resuming(proposed: StateType) -> None:
    decision = decide(facts(PAUSED), to(proposed))
    accepted(decision)
    assert decision.policy_changes == {}


@pytest.mark.parametrize("proposed", [RUNNING, SCHEDULED, COMPLETED])
def test_a_pause_past_its_deadline_fails(proposed: StateType) -> None:
    current = in_state(PAUSED, "Suspended", pause_reschedule=True, pause_timeout=at(-1))
    decision = decide(facts(current, deployment_id="d"), to(proposed))
    state = replaced(decision, "The flow run pause has timed out and can no longer resume.")
    assert (state.type, state.message) == (FAILED, "The flow was suspended and never resumed.")


def test_a_paused_process_is_cancelled_even_past_its_deadline() -> None:
    accepted(decide(facts(in_state(PAUSED, pause_timeout=at(-1))), to(CANCELLING)))


def test_a_pause_within_its_deadline_resumes() -> None:
    accepted(decide(facts(in_state(PAUSED, pause_timeout=at(1))), to(RUNNING)))


def test_a_suspended_run_without_deployment_is_not_resumed() -> None:
    kept(
        decide(facts(in_state(PAUSED, pause_reschedule=True)), to(SCHEDULED, "Resuming")),
        Status.REJECT,
        "Cannot reschedule a resuming flow run without a deployment.",
    )


# --- 13 CopyScheduledTime


def test_pending_carries_the_scheduled_time_on() -> None:
    current = in_state(SCHEDULED, scheduled_time=at(-7))
    decision = decide(facts(current), to(PENDING))
    assert accepted(decision).details["scheduled_time"] == at(-7)
    assert decision.copied_details == {"scheduled_time": at(-7)}
    own = decide(facts(current), to(PENDING, details={"scheduled_time": at(3)}))
    assert accepted(own).details["scheduled_time"] == at(3)


# --- 14 WaitForScheduledTime


@pytest.mark.parametrize("type_", [SCHEDULED, PENDING])
@pytest.mark.parametrize(
    ("ahead_seconds", "delay_seconds"), [(10, 10), (1.6, 2), (1.5, 1), (1.4, 1), (0.500_001, 1), (86_400, 86_400)]
)
def test_a_run_waits_for_its_time(type_: StateType, ahead_seconds: float, delay_seconds: int) -> None:
    decision = decide(facts(in_state(type_, scheduled_time=at(ahead_seconds))), to(RUNNING))
    assert decision.status is Status.WAIT
    assert decision.details["delay_seconds"] == delay_seconds
    assert not decision.write


@pytest.mark.parametrize("ahead_seconds", [0.5, 0, -3])
def test_a_run_starts_when_its_time_has_come(ahead_seconds: float) -> None:
    accepted(decide(facts(in_state(SCHEDULED, scheduled_time=at(ahead_seconds))), to(RUNNING)))


# --- 15 RetryFailedFlows


def test_a_failure_is_retried_in_process() -> None:
    current = in_state(RUNNING, deployment_concurrency_lease_id="lease")
    trying = facts(current, deployment_id="d", retries=2, run_count=2, retry_delay_seconds=12)
    decision = decide(trying, to(FAILED, message="boom", data={"type": "unpersisted"}))
    state = replaced(decision, "Retrying")
    assert (state.type, state.name, state.message) == (SCHEDULED, "AwaitingRetry", "boom")
    assert state.data == {"type": "unpersisted"}
    assert state.details["scheduled_time"] == at(12)
    assert state.details["deployment_concurrency_lease_id"] == "lease"
    assert decision.policy_changes == {"resuming": False, "pause_keys": [], "retry_type": "in_process"}


@pytest.mark.parametrize(("retries", "run_count"), [(None, 1), (0, 1), (1, 2)])
def test_a_failure_without_retries_left_is_a_failure(retries: int | None, run_count: int) -> None:
    decision = decide(facts(RUNNING, retries=retries, run_count=run_count), to(FAILED))
    assert accepted(decision).type is FAILED
    assert decision.policy_changes == {"retry_type": None}


@pytest.mark.parametrize("proposed", [CRASHED, CANCELLED])
def test_only_failures_are_retried(proposed: StateType) -> None:
    assert accepted(decide(facts(RUNNING, retries=3, run_count=1), to(proposed))).type is proposed


def test_a_retry_without_a_delay_is_due_now() -> None:
    state = replaced(decide(facts(RUNNING, retries=1, run_count=1), to(FAILED)), "Retrying")
    assert state.details["scheduled_time"] == at(0)


def test_a_delay_beyond_all_time_ends_with_time() -> None:
    assert iso_after(NOW_US, 1e300).startswith("9999-01-01")
    assert iso_after(NOW_US, -5) == at(0)


# --- 16 and 17: what is told to others


def test_every_written_state_is_told() -> None:
    assert initial(facts(None), to(SCHEDULED)).effects == {Effect.EMIT_EVENT}
    assert decide_late(facts(SCHEDULED)).effects == {Effect.EMIT_EVENT}
    assert decide(facts(PENDING), to(RUNNING)).effects == {Effect.EMIT_EVENT}
    assert decide(facts(RUNNING, retries=1), to(FAILED)).effects == {Effect.EMIT_EVENT}


@pytest.mark.parametrize("current", sorted(OCCUPYING))
def test_leaving_a_slot_is_told_to_those_who_wait_for_it(current: StateType) -> None:
    assert decide(facts(current, deployment_id="d"), to(CANCELLED)).effects == FREED
    assert decide(facts(current), to(CANCELLED)).effects == {Effect.EMIT_EVENT}
    assert decide(facts(current, deployment_id="d"), to(RUNNING), force=True).effects == {Effect.EMIT_EVENT}
    assert decide(facts(current, deployment_id="d"), to(CRASHED), force=True).effects == FREED


# --- force


def test_force_passes_what_the_rules_would_refuse() -> None:
    assert accepted(decide(facts(FAILED), to(SCHEDULED), force=True)).type is SCHEDULED
    assert accepted(decide(facts(CANCELLING), to(COMPLETED), force=True)).type is COMPLETED
    assert accepted(decide(facts(RUNNING), to(PENDING), force=True)).type is PENDING
    assert accepted(decide(facts(RUNNING, retries=5), to(FAILED), force=True)).type is FAILED


def test_force_does_not_lose_a_result() -> None:
    current = in_state(COMPLETED, data=RESULT)
    assert decide(facts(current), to(COMPLETED), force=True).status is Status.REJECT
    accepted(decide(facts(current), to(FAILED), force=True))
    accepted(decide(facts(current), to(SCHEDULED), force=True))


# --- late, initial, resume


def test_a_late_run_says_since_when() -> None:
    due = facts(in_state(SCHEDULED, scheduled_time=at(-20)), next_scheduled_start_time_us=NOW_US - 20 * SECOND_US)
    state = accepted(decide_late(due))
    assert (state.name, state.details["scheduled_time"]) == ("Late", at(-20))
    assert decide_late(facts(RUNNING)).status is Status.REJECT


@pytest.mark.parametrize(("strategy", "type_"), [("CANCEL_NEW", CANCELLED), ("ENQUEUE", SCHEDULED)])
def test_a_late_run_without_a_slot_is_dropped_where_the_deployment_says_so(strategy: str, type_: StateType) -> None:
    full = facts(SCHEDULED, deployment_id="d", concurrency_limit=1, slots_taken=1, collision_strategy=strategy)
    state = decide_late(full).state
    assert state is not None
    assert state.type is type_


def test_a_first_state_is_accepted_as_it_is() -> None:
    for type_ in StateType:
        assert accepted(initial(facts(None), to(type_))).type is type_


def test_nobody_gets_a_slot_by_being_born_pending() -> None:
    full = facts(None, deployment_id="d", concurrency_limit=1, slots_taken=1)
    assert replaced(initial(full, to(PENDING)), "Deployment concurrency limit reached.").type is SCHEDULED


def test_resuming_reschedules_what_was_suspended_and_runs_what_was_paused() -> None:
    suspended = resume_state(in_state(PAUSED, pause_reschedule=True), NOW_US)
    assert (suspended.type, suspended.name, suspended.details) == (SCHEDULED, "Resuming", {"scheduled_time": at(0)})
    assert resume_state(in_state(PAUSED), NOW_US).type is RUNNING


def test_a_pause_expires_after_its_deadline() -> None:
    assert pause_expired(in_state(PAUSED, pause_timeout=at(-1)), NOW_US)
    assert not pause_expired(in_state(PAUSED, pause_timeout=at(1)), NOW_US)
    assert not pause_expired(in_state(PAUSED), NOW_US)
    assert not pause_expired(in_state(RUNNING, pause_timeout=at(-1)), NOW_US)
    state = pause_expired_state(in_state(PAUSED))
    assert (state.type, state.message) == (FAILED, "The flow was paused and never resumed.")


@pytest.mark.parametrize(
    ("policy", "retries", "delay"),
    [
        ({}, None, None),
        ({"retries": 2, "retry_delay": 5, "max_retries": 9, "retry_delay_seconds": 9.0}, 2, 5),
        ({"retries": None, "max_retries": 3, "retry_delay_seconds": 4.0}, 3, 4.0),
        ({"retries": 0, "max_retries": 0}, 0, None),
    ],
)
def test_policy_facts(policy: dict[str, Any], retries: int | None, delay: float | None) -> None:
    read = flow_policy_facts(policy)
    assert (read["retries"], read["retry_delay_seconds"]) == (retries, delay)
    assert flow_policy_facts({"pause_keys": ["1"], "resuming": True, "retry_type": "in_process"}) == {
        "retries": None,
        "retry_delay_seconds": None,
        "pause_keys": frozenset({"1"}),
        "resuming": True,
        "retry_type": "in_process",
    }
