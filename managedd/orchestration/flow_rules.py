"""The rules of flow runs, in the order in which they are asked.

The rows follow Prefect's own flow policy one by one. Three differ, because a slot here is not a lease that somebody must renew but a
fact about rows: a run in PENDING, RUNNING or CANCELLING holds its deployment's slot, and after its end its container does until that is
gone. For what is leaving, nobody is cancelled who collides with nobody.

* `ValidateDeploymentConcurrencyAtRunning`: a run that was PENDING held its slot all along and can't have lost it. A run that starts
  from a state without a slot (an in-process retry above all) waits until one is free, rather than be cancelled half-way.
* `SecureFlowConcurrencySlots`: counts, and hands out no lease; a lease id that a client brought along is only carried on.
* `ReleaseFlowConcurrencySlots`: nothing to give back, only others to wake.
"""

from __future__ import annotations

from managedd.model.flow_runs import CollisionStrategy, FlowRunFacts, ProposedState, iso_after, moment_us
from managedd.model.states import OCCUPYING, TERMINAL, StateType
from managedd.orchestration.run_rules import (
    ANY_OR_NONE,
    ANY_TYPE,
    LEASE,
    copy_scheduled_time,
    has_persisted_result,
    prevent_pending_transitions,
    types,
    wait_for_scheduled_time,
)
from managedd.orchestration.verdicts import Amend, Effect, Refuse, Rule, Status, Verdict

LEASING_CLIENT = (3, 4, 11)
"""The first client that renews a lease it was given."""
LIMIT_REACHED = "Deployment concurrency limit reached."


def preserve_lease_id(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    lease_id = facts.current_detail(LEASE)
    if lease_id is None or proposed.details.get(LEASE) is not None:
        return None
    return Amend(state=proposed.detailed(**{LEASE: lease_id}), copied_details={LEASE: lease_id})


def prevent_duplicate_transitions(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    transition_id = proposed.details.get("transition_id")
    if transition_id is None or facts.current_detail("transition_id") != transition_id:
        return None
    return Refuse(status=Status.REJECT, reason="This run has already made this state transition.")


def handle_terminal_states(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None:
        return None
    if proposed.type in {StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED}:
        return Refuse(status=Status.ABORT, reason=f"Run is already in terminal state {current.type.value}.")
    leaves = proposed.type not in TERMINAL
    if leaves and current.type is StateType.COMPLETED and has_persisted_result(current.data):
        return Refuse(status=Status.REJECT, reason="Run is already COMPLETED.")
    if (loss := prevent_result_data_loss(facts, proposed)) is not None:
        return loss
    if proposed.type is StateType.SCHEDULED and facts.deployment_id is None:
        return Refuse(status=Status.ABORT, reason="Cannot reschedule a run without an associated deployment.")
    if not (leaves and facts.knows_pauses):
        return None
    retry_type = "reschedule" if proposed.type is StateType.SCHEDULED else None
    return Amend(policy_changes={"resuming": False, "pause_keys": [], "retry_type": retry_type})


def prevent_result_data_loss(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None or not current.type == proposed.type == StateType.COMPLETED:
        return None
    if not has_persisted_result(current.data) or has_persisted_result(proposed.data):
        return None
    return Refuse(
        status=Status.REJECT, reason="The run is COMPLETED with a persisted result; the proposed state would lose it."
    )


def enforce_cancelling_to_cancelled(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    return Refuse(status=Status.REJECT, reason=f"This run is being cancelled and cannot become {proposed.type.value}.")


def bypass_cancelling_without_infrastructure(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None:
        return None
    if current.type is StateType.SCHEDULED and (not facts.infrastructure_pid or current.name == "Resuming"):
        reason = "Scheduled flow run has no infrastructure to terminate."
    elif current.type is StateType.PAUSED and current.details.get("pause_reschedule"):
        reason = "Suspended flow run has no infrastructure to terminate."
    else:
        return None
    return Refuse(status=Status.REJECT, reason=reason, state=ProposedState(type=StateType.CANCELLED, message=reason))


def validate_concurrency_at_running(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    if facts.deployment_id is None or not facts.slots_full:
        return None
    return Refuse(status=Status.WAIT, reason=LIMIT_REACHED, delay_seconds=facts.slot_wait_seconds)


def secure_concurrency_slot(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    if facts.deployment_id is None:
        return None
    if not facts.deployment_exists:
        return Refuse(status=Status.ABORT, reason="Deployment not found.")
    if facts.concurrency_limit == 0:
        return Refuse(status=Status.ABORT, reason="The deployment concurrency limit is 0: this run could never start.")
    if not facts.slots_full:
        return None
    if facts.slots_collide and facts.collision_strategy == CollisionStrategy.CANCEL_NEW:
        replacement = ProposedState(type=StateType.CANCELLED, message=LIMIT_REACHED)
    else:
        replacement = ProposedState(
            type=StateType.SCHEDULED,
            name="AwaitingConcurrencySlot",
            details={"scheduled_time": iso_after(facts.now_us, facts.slot_wait_seconds)},
        )
    return Refuse(status=Status.REJECT, reason=LIMIT_REACHED, state=replacement)


def remove_lease_of_old_clients(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    if proposed.details.get(LEASE) is None or _release_of(facts.client_version) >= LEASING_CLIENT:
        return None
    return Amend(state=proposed.detailed(**{LEASE: None}))


def _release_of(client_version: str | None) -> tuple[int, ...]:
    # Development builds ("3.4.11.dev1") count as the release they lead to; no version at all is as old as can be.
    numbers = (client_version or "").split("+")[0].split(".")[:3]
    return tuple(int(number) if number.isdecimal() and len(number) < 9 else 0 for number in numbers)


def only_scheduled_runs_get_late(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None or proposed.name != "Late":
        return None
    if current.type is not StateType.SCHEDULED:
        return Refuse(status=Status.REJECT, reason="Only a scheduled run can be late.")
    if current.name == "Late":
        return Refuse(status=Status.REJECT, reason="This run is late already.")
    return None


def cancel_late_runs_without_slot(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    if proposed.name != "Late" or facts.deployment_id is None or not facts.slots_collide:
        return None
    if facts.collision_strategy != CollisionStrategy.CANCEL_NEW:
        return None
    return Refuse(
        status=Status.REJECT,
        reason=LIMIT_REACHED,
        state=ProposedState(type=StateType.CANCELLED, message=LIMIT_REACHED),
    )


def handle_pausing(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    verb = "suspend" if proposed.name == "Suspended" else "pause"
    if facts.current is None:
        return Refuse(status=Status.ABORT, reason=f"Cannot {verb} flows with no state.")
    if facts.current.type is not StateType.RUNNING:
        return Refuse(status=Status.REJECT, reason=f"Cannot {verb} flows that are not currently running.")
    key = proposed.details.get("pause_key")
    if not isinstance(key, str):
        key = None  # a pause without a key can't be recognised a second time, so there is nothing to remember
    if key in facts.pause_keys:
        return Refuse(status=Status.REJECT, reason=f"This {verb} has already fired.")
    if proposed.details.get("pause_reschedule"):
        if facts.parent_task_run_id is not None:
            return Refuse(status=Status.ABORT, reason=f"Cannot {verb} subflows.")
        if facts.deployment_id is None:
            return Refuse(status=Status.ABORT, reason=f"Cannot {verb} flows without a deployment.")
    return None if key is None else Amend(policy_changes={"pause_keys": sorted({*facts.pause_keys, key})})


def handle_resuming(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None:
        return None
    if proposed.type in {StateType.PENDING, StateType.PAUSED}:
        return Refuse(
            status=Status.REJECT,
            reason=f"This run cannot transition to the {proposed.type.value} state from the PAUSED state.",
        )
    wish = proposed.name.lower()
    if current.details.get("pause_reschedule") and facts.deployment_id is None:
        return Refuse(status=Status.REJECT, reason=f"Cannot reschedule a {wish} flow run without a deployment.")
    resuming = Amend(policy_changes={"resuming": True})
    if proposed.type is StateType.CANCELLING:
        return resuming  # a paused process is alive, and must be stopped even when its time to resume is over
    timeout_us = moment_us(current.details.get("pause_timeout"))
    if timeout_us is not None and timeout_us < facts.now_us:
        return Refuse(
            status=Status.REJECT,
            reason="The flow run pause has timed out and can no longer resume.",
            state=pause_timed_out(current.name),
        )
    # A run that ended has nothing left to resume; the mark would only spoil the count of a later, forced retry.
    return None if proposed.type in TERMINAL else resuming


def pause_timed_out(name: str) -> ProposedState:
    """The state of a run that waited in PAUSED (or "Suspended": `name`) for longer than it may."""
    return ProposedState(type=StateType.FAILED, message=f"The flow was {name.lower()} and never resumed.")


def retry_failed_flows(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    # Clients below API 0.8.3 (Prefect 2) also want their failed task runs rescheduled here. They have no managed pools and no place in
    # this server, so that half is left out.
    if facts.retries is None or facts.run_count > facts.retries:
        return Amend(policy_changes={"retry_type": None})
    state = ProposedState(
        type=StateType.SCHEDULED,
        name="AwaitingRetry",
        message=proposed.message,
        data=proposed.data,
        details={"scheduled_time": iso_after(facts.now_us, facts.retry_delay_seconds or 0)},
    ).detailed(**{LEASE: facts.current_detail(LEASE)})
    reset = {"resuming": False, "pause_keys": [], "retry_type": "in_process"}
    return Refuse(
        status=Status.REJECT, reason="Retrying", state=state, policy_changes=reset if facts.knows_pauses else {}
    )


def instrument_transition(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    return Amend(effects=frozenset({Effect.EMIT_EVENT}))


def release_concurrency_slot(facts: FlowRunFacts, proposed: ProposedState) -> Verdict:
    return Amend(effects=frozenset({Effect.FREE_SLOT})) if facts.deployment_id is not None else None


NOT_OCCUPYING = ANY_OR_NONE - OCCUPYING
SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
CANCELLING, CANCELLED, PAUSED = StateType.CANCELLING, StateType.CANCELLED, StateType.PAUSED

_BYPASS = Rule(
    name="BypassCancellingFlowRunsWithNoInfra",
    from_=types(SCHEDULED, PAUSED),
    to=frozenset({CANCELLING}),
    judge=bypass_cancelling_without_infrastructure,
)
_SECURE = Rule(
    name="SecureFlowConcurrencySlots", from_=NOT_OCCUPYING, to=frozenset({PENDING}), judge=secure_concurrency_slot
)
_ONLY_SCHEDULED_LATE = Rule(
    name="EnsureOnlyScheduledFlowsMarkedLate",
    from_=ANY_OR_NONE,
    to=frozenset({SCHEDULED}),
    judge=only_scheduled_runs_get_late,
)
_INSTRUMENT = Rule(
    name="InstrumentFlowRunStateTransitions",
    from_=ANY_OR_NONE,
    to=ANY_TYPE,
    judge=instrument_transition,
    bookkeeping=True,
)
_RELEASE = Rule(
    name="ReleaseFlowConcurrencySlots",
    from_=types(*OCCUPYING),
    to=ANY_TYPE - OCCUPYING,
    judge=release_concurrency_slot,
    bookkeeping=True,
)

FLOW_RULES: tuple[Rule[FlowRunFacts], ...] = (
    Rule(name="PreserveDeploymentConcurrencyLeaseId", from_=ANY_OR_NONE, to=ANY_TYPE, judge=preserve_lease_id),
    Rule(name="PreventDuplicateTransitions", from_=ANY_OR_NONE, to=ANY_TYPE, judge=prevent_duplicate_transitions),
    Rule(name="HandleFlowTerminalStateTransitions", from_=types(*TERMINAL), to=ANY_TYPE, judge=handle_terminal_states),
    Rule(
        name="EnforceCancellingToCancelledTransition",
        from_=types(CANCELLING),
        to=ANY_TYPE - {CANCELLED},
        judge=enforce_cancelling_to_cancelled,
    ),
    _BYPASS,
    Rule(
        name="PreventPendingTransitions",
        from_=types(PENDING, RUNNING, CANCELLING, CANCELLED),
        to=frozenset({PENDING}),
        judge=prevent_pending_transitions,
    ),
    Rule(
        name="ValidateDeploymentConcurrencyAtRunning",
        # A paused process keeps running once it is told to; there is nobody whom a WAIT would reach.
        from_=NOT_OCCUPYING - {PAUSED},
        to=frozenset({RUNNING}),
        judge=validate_concurrency_at_running,
    ),
    _SECURE,
    Rule(
        name="RemoveDeploymentConcurrencyLeaseForOldClientVersions",
        from_=types(PENDING),
        to=frozenset({RUNNING, CANCELLING}),
        judge=remove_lease_of_old_clients,
    ),
    _ONLY_SCHEDULED_LATE,
    Rule(name="HandlePausingFlows", from_=ANY_OR_NONE, to=frozenset({PAUSED}), judge=handle_pausing),
    Rule(name="HandleResumingPausedFlows", from_=types(PAUSED), to=ANY_TYPE, judge=handle_resuming),
    Rule(name="CopyScheduledTime", from_=types(SCHEDULED), to=frozenset({PENDING}), judge=copy_scheduled_time),
    Rule(
        name="WaitForScheduledTime",
        from_=types(SCHEDULED, PENDING),
        to=frozenset({RUNNING}),
        judge=wait_for_scheduled_time,
    ),
    Rule(name="RetryFailedFlows", from_=types(RUNNING), to=frozenset({StateType.FAILED}), judge=retry_failed_flows),
    _INSTRUMENT,
    _RELEASE,
)
"""Every unforced proposal."""

MINIMAL_FLOW_RULES: tuple[Rule[FlowRunFacts], ...] = (
    Rule(name="PreventResultDataLoss", from_=types(*TERMINAL), to=frozenset(TERMINAL), judge=prevent_result_data_loss),
    _BYPASS,
    _INSTRUMENT,
    _RELEASE,
)
"""A forced proposal."""

INITIAL_FLOW_RULES: tuple[Rule[FlowRunFacts], ...] = (_SECURE, _INSTRUMENT)
"""A run's first state: forced too, as Prefect does it, but nobody gets a slot by being born PENDING."""

LATE_RULES: tuple[Rule[FlowRunFacts], ...] = (
    _ONLY_SCHEDULED_LATE,
    Rule(
        name="EnforceDeploymentConcurrencyOnLate",
        from_=types(SCHEDULED),
        to=frozenset({SCHEDULED}),
        judge=cancel_late_runs_without_slot,
    ),
    _INSTRUMENT,
)
"""Marking a run late."""
