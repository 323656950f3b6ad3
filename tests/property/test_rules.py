"""Properties of the state rules over every state, proposal and circumstance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from managedd.clock import iso
from managedd.model.flow_runs import FlowRunFacts, ProposedState, TagLimit, TaskRunFacts, moment_us
from managedd.model.states import OCCUPYING, TERMINAL, State, StateType
from managedd.orchestration.rules import (
    Decision,
    Effect,
    Status,
    decide,
    decide_late,
    decide_task,
    initial,
    run_columns,
    task_run_columns,
)

unhurried = settings(deadline=None)
"""The machine is shared: how long one example takes says nothing."""
NOW_US = 1_800_000_000_000_000
RESULT = {"type": "reference", "storage_key": "a/b"}
NAMES = ["", "Late", "Pending", "Submitting", "Suspended", "AwaitingRetry", "Resuming", "Retrying", "Running", "odd"]

types = st.sampled_from(StateType)
times = st.one_of(
    st.none(),
    st.integers(-100_000_000, 100_000_000).map(lambda offset_us: iso(NOW_US + offset_us)),
    st.sampled_from(["", "yesterday", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z", 7, ["x"]]),
)
junk = st.sampled_from([None, "", "a", "b", 0, 1, True, False, ["x"], {"x": 1}])
details = st.fixed_dictionaries(
    {},
    optional={
        "scheduled_time": times,
        "pause_timeout": times,
        "pause_key": junk,
        "pause_reschedule": junk,
        "transition_id": junk,
        "deployment_concurrency_lease_id": junk,
        "deferred": junk,
        "retriable": junk,
        "cache_key": st.one_of(junk, st.just("k" * 2001)),
        "refresh_cache": junk,
        "task_parameters_id": junk,
        "run_input_keyset": junk,
    },
)
data = st.sampled_from([None, {}, RESULT, {"type": "unpersisted"}, "text", [1], 0])
proposals = st.builds(
    ProposedState,
    type=types,
    name=st.sampled_from(NAMES),
    message=st.none() | st.text(max_size=5),
    data=data,
    details=details,
)
states = st.builds(
    State,
    type=types,
    name=st.sampled_from(NAMES[1:]),
    id=st.just("current"),
    timestamp_us=st.integers(NOW_US - 100_000_000, NOW_US + 100_000_000),
    data=data,
    details=details,
)
terminal_states = st.builds(replace, states, type=st.sampled_from(sorted(TERMINAL)))
occupying_states = st.builds(replace, states, type=st.sampled_from(sorted(OCCUPYING)))
moments = st.none() | st.integers(NOW_US - 100_000_000, NOW_US)
shared: dict[str, st.SearchStrategy[Any]] = {
    "now_us": st.just(NOW_US),
    "run_id": st.text(max_size=3),
    "current": st.none() | states,
    "run_count": st.integers(-1, 5),
    "start_time_us": moments,
    "end_time_us": moments,
    "total_run_time_us": st.integers(0, 10**9),
    "expected_start_time_us": moments,
    "next_scheduled_start_time_us": moments,
    "retries": st.none() | st.integers(-1, 4),
}
delays = st.floats() | st.integers(-5, 10**20)
flow_facts = st.builds(
    FlowRunFacts,
    **shared,
    deployment_id=st.none() | st.just("deployment"),
    deployment_exists=st.booleans(),
    concurrency_limit=st.none() | st.integers(0, 3),
    slots_taken=st.integers(0, 4),
    collision_strategy=st.sampled_from(["ENQUEUE", "CANCEL_NEW", "odd"]),
    parent_task_run_id=st.none() | st.just("task"),
    infrastructure_pid=st.none() | st.just("container"),
    retry_delay_seconds=st.none() | delays,
    pause_keys=st.frozensets(st.sampled_from(["a", "b"])),
    resuming=st.booleans(),
    retry_type=st.sampled_from([None, "in_process", "reschedule"]),
    api_version=st.sampled_from([None, (0, 8, 3), (0, 8, 4), ()]),
    client_version=st.none() | st.text(max_size=8) | st.sampled_from(["3.8.8", "3.4.10"]),
)
task_facts = st.builds(
    TaskRunFacts,
    **shared,
    flow_run_id=st.none() | st.just("flow"),
    flow_run_exists=st.booleans(),
    flow_run_state=st.none() | states,
    flow_run_run_count=st.integers(0, 3),
    parent_run_count=st.integers(0, 3),
    retry_delay_seconds=st.none() | delays | st.lists(delays, max_size=3).map(tuple),
    retry_jitter_factor=st.none() | st.floats(-1, 10),
    tag_limits=st.lists(
        st.builds(TagLimit, tag=st.text(max_size=3), limit=st.integers(0, 2), slots_taken=st.integers(0, 3)), max_size=2
    ).map(tuple),
    cached_state=st.none() | states,
)


def written(decision: Decision) -> State:
    state = decision.state
    assert state is not None
    return State(
        type=state.type,
        name=state.name,
        id="new",
        timestamp_us=NOW_US,
        message=state.message,
        data=state.data,
        details=state.details,
    )


def assert_sound(decision: Decision, known: FlowRunFacts | TaskRunFacts) -> None:
    """What holds of every decision, flow run's or task run's."""
    assert decision.write == (decision.state is not None)
    if decision.status is Status.ACCEPT:
        assert decision.write
        assert decision.details == {"type": "accept_details"}
    else:
        assert decision.details["type"] == f"{decision.status.value.lower()}_details"
        assert decision.details["reason"]
    if decision.status in {Status.WAIT, Status.ABORT}:
        assert not decision.write
    if decision.status is Status.WAIT:
        delay_seconds = decision.details["delay_seconds"]
        assert type(delay_seconds) is int
        assert delay_seconds > 0
    if decision.state is None:
        assert not decision.effects
        assert not decision.policy_changes
        assert not decision.copied_details
    else:
        assert decision.state.name
        assert None not in decision.state.details.values()
        if decision.state.type is StateType.SCHEDULED:
            assert moment_us(decision.state.details.get("scheduled_time")) is not None
    if decision.status is Status.REJECT and known.current is None:
        assert decision.write  # else there would be no state to answer with


@unhurried
@given(flow_facts, proposals, st.booleans())
def test_flow_decisions_are_total_sound_and_repeatable(
    known: FlowRunFacts, proposed: ProposedState, force: bool
) -> None:
    decision = decide(known, proposed, force=force)
    assert_sound(decision, known)
    assert decision == decide(known, proposed, force=force)
    if decision.write:
        columns = run_columns(known, written(decision), decision)
        assert columns["state_type"] == written(decision).type.value


@unhurried
@given(task_facts, proposals, st.booleans())
def test_task_decisions_are_total_sound_and_repeatable(
    known: TaskRunFacts, proposed: ProposedState, force: bool
) -> None:
    decision = decide_task(known, proposed, force=force)
    assert_sound(decision, known)
    assert decision == decide_task(known, proposed, force=force)
    if decision.write:
        columns = task_run_columns(known, written(decision), decision)
        assert columns["state_type"] == written(decision).type.value


@unhurried
@given(flow_facts, proposals)
def test_late_and_first_states_are_total_and_sound(known: FlowRunFacts, proposed: ProposedState) -> None:
    assert_sound(decide_late(known), known)
    assert_sound(initial(known, proposed), known)


@unhurried
@given(flow_facts, terminal_states, proposals)
def test_a_terminal_run_comes_back_only_by_a_rerun(known: FlowRunFacts, ended: State, proposed: ProposedState) -> None:
    """Late news of a run's process never revive it: only a rerun does, and none of a run whose result is kept."""
    known = replace(known, current=ended)
    state = decide(known, proposed).state
    if state is None or state.type in TERMINAL:
        return
    assert ended.type is not StateType.COMPLETED or ended.data != RESULT
    if state.type is StateType.SCHEDULED:
        assert known.deployment_id is not None
    else:
        assert state.type is proposed.type
        assert state.type in {StateType.PENDING, StateType.RUNNING}
    if ended.type is StateType.CANCELLED:
        assert state.type is not StateType.PENDING


@unhurried
@given(flow_facts, occupying_states, details)
def test_pending_is_a_lock(known: FlowRunFacts, held: State, wish: dict[str, Any]) -> None:
    proposed = ProposedState(type=StateType.PENDING, details=wish)
    assert decide(replace(known, current=held), proposed).state is None


@unhurried
@given(flow_facts, proposals, st.integers(0, 3), st.integers(0, 3))
def test_no_slot_is_taken_beyond_the_limit(known: FlowRunFacts, proposed: ProposedState, limit: int, over: int) -> None:
    known = replace(known, deployment_id="deployment", concurrency_limit=limit, slots_taken=limit + over)
    held = known.current is not None and known.current.type in OCCUPYING | {StateType.PAUSED}
    state = decide(known, proposed).state
    if not held and state is not None:
        assert state.type not in {StateType.PENDING, StateType.RUNNING}


@unhurried
@given(flow_facts, proposals)
def test_a_slot_is_freed_exactly_when_it_is_left(known: FlowRunFacts, proposed: ProposedState) -> None:
    decision = decide(known, proposed)
    held = known.current is not None and known.current.type in OCCUPYING and known.deployment_id is not None
    leaves = decision.state is not None and decision.state.type not in OCCUPYING
    assert (Effect.FREE_SLOT in decision.effects) == (held and leaves)
    assert (Effect.EMIT_EVENT in decision.effects) == decision.write


@unhurried
@given(flow_facts, proposals)
def test_force_yields_to_the_minimal_rules_only(known: FlowRunFacts, proposed: ProposedState) -> None:
    decision = decide(known, proposed, force=True)
    current = known.current
    if decision.status is Status.ACCEPT:
        assert decision.state is not None
        assert (decision.state.type, decision.state.data) == (proposed.type, proposed.data)
        return
    assert decision.status is Status.REJECT
    assert current is not None
    if decision.write:
        assert proposed.type is StateType.CANCELLING
        assert current.type in {StateType.SCHEDULED, StateType.PAUSED}
        assert written(decision).type is StateType.CANCELLED
    else:
        assert current.type is proposed.type is StateType.COMPLETED
        assert current.data == RESULT


@unhurried
@given(task_facts, terminal_states, proposals)
def test_a_finished_task_keeps_its_result(known: TaskRunFacts, ended: State, proposed: ProposedState) -> None:
    done = replace(ended, type=StateType.COMPLETED, data=RESULT)
    decision = decide_task(replace(known, current=done), proposed)
    assert decision.state is None or decision.state.name == "Cached"


@unhurried
@given(flow_facts, proposals)
def test_times_in_the_row_never_run_backwards(known: FlowRunFacts, proposed: ProposedState) -> None:
    decision = decide(known, proposed)
    assume(decision.write)
    columns = run_columns(known, written(decision), decision)
    assert columns.get("total_run_time", 0) >= 0
    assert columns.get("run_count", known.run_count) - known.run_count in {0, 1}
    ended = columns.get("end_time", known.end_time_us)
    if written(decision).is_terminal:
        assert ended is not None
        assert columns.get("start_time", known.start_time_us) is not None or known.end_time_us is not None
    elif known.current is not None and known.current.is_terminal:
        assert ended is None
