"""What the rules of flow runs and of task runs share."""

from __future__ import annotations

from managedd.model.flow_runs import ProposedState, RunFacts, moment_us
from managedd.model.states import StateType
from managedd.orchestration.verdicts import Amend, Refuse, Status, Verdict

ANY_TYPE: frozenset[StateType] = frozenset(StateType)
ANY_OR_NONE: frozenset[StateType | None] = frozenset({*StateType, None})
LEASE = "deployment_concurrency_lease_id"


def types(*members: StateType | None) -> frozenset[StateType | None]:
    """The set of the given state types; None stands for a run without a state."""
    return frozenset(members)


def has_persisted_result(data: object) -> bool:
    """Whether a state's data says where a result is kept."""
    return isinstance(data, dict) and bool(data) and data.get("type") != "unpersisted"


def prevent_pending_transitions(facts: RunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None:
        return None
    # A launcher tells its progress in PENDING's name; whoever says plain "Pending" a second time is a second launcher.
    if current.type is StateType.PENDING and proposed.name not in {current.name, "Pending"}:
        kept = {key: current.details.get(key) for key in ("scheduled_time", LEASE)}
        copied = {key: value for key, value in kept.items() if value is not None}
        return Amend(state=proposed.detailed(**kept), copied_details=copied)
    return Refuse(
        status=Status.ABORT,
        reason=f"This run is in a {current.type.value} state and cannot transition to a PENDING state.",
    )


def copy_scheduled_time(facts: RunFacts, proposed: ProposedState) -> Verdict:
    scheduled_time = facts.current_detail("scheduled_time")
    if scheduled_time is None or proposed.details.get("scheduled_time") is not None:
        return None
    return Amend(
        state=proposed.detailed(scheduled_time=scheduled_time),
        copied_details={"scheduled_time": scheduled_time},
    )


def wait_for_scheduled_time(facts: RunFacts, proposed: ProposedState) -> Verdict:
    scheduled_us = moment_us(facts.current_detail("scheduled_time"))
    if scheduled_us is None:
        return None
    delay_seconds = seconds_until(scheduled_us, facts.now_us)
    if delay_seconds <= 0:
        return None
    return Refuse(status=Status.WAIT, reason="Scheduled time is in the future", delay_seconds=delay_seconds)


def seconds_until(moment: int, now_us: int) -> int:
    """Whole seconds from now to `moment`, to the nearest (the answer's field is an integer); half a second and less is none."""
    seconds, rest_us = divmod(moment - now_us, 1_000_000)
    return seconds + (1 if rest_us > 500_000 else 0)
