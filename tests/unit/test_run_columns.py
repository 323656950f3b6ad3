"""What a new state changes in its run's row."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.clock import iso
from managedd.model.flow_runs import FlowRunFacts, ProposedState, TaskRunFacts
from managedd.model.states import TERMINAL, State, StateType, default_name
from managedd.orchestration.rules import decide, decide_task, run_columns, task_run_columns

NOW_US = 1_800_000_000_000_000
BEFORE_US = NOW_US - 10_000_000
STATE_COLUMNS = {"state_id", "state_type", "state_name", "state_timestamp"}

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
COMPLETED, FAILED, CANCELLED, PAUSED = StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.PAUSED


def state(type_: StateType, name: str = "", *, timestamp_us: int = NOW_US, **details: Any) -> State:
    return State(type=type_, name=name or default_name(type_), id="new", timestamp_us=timestamp_us, details=details)


def facts(current: StateType | None, **more: Any) -> FlowRunFacts:
    before = None if current is None else state(current, timestamp_us=BEFORE_US)
    return FlowRunFacts(now_us=NOW_US, run_id="run", current=before, **{"expected_start_time_us": BEFORE_US, **more})


def task_facts(current: StateType | None, **more: Any) -> TaskRunFacts:
    before = None if current is None else state(current, timestamp_us=BEFORE_US)
    return TaskRunFacts(now_us=NOW_US, run_id="task", current=before, **{"expected_start_time_us": BEFORE_US, **more})


def through(known: FlowRunFacts, type_: StateType, **details: Any) -> dict[str, Any]:
    """The columns after the rules have had their say."""
    decision = decide(known, ProposedState(type=type_, details=details))
    assert decision.state is not None
    written = decision.state
    new = State(type=written.type, name=written.name, id="new", timestamp_us=NOW_US, details=written.details)
    return run_columns(known, new, decision)


def test_only_what_changes_is_returned() -> None:
    assert run_columns(facts(None), state(PENDING, "Submitting")) == {
        "state_id": "new",
        "state_type": "PENDING",
        "state_name": "Submitting",
        "state_timestamp": NOW_US,
    }


def test_the_state_type_is_plain_text() -> None:
    assert type(run_columns(facts(None), state(PENDING))["state_type"]) is str


def test_the_first_running_starts_the_run() -> None:
    assert run_columns(facts(PENDING), state(RUNNING))["start_time"] == NOW_US
    assert "start_time" not in run_columns(facts(PENDING, start_time_us=BEFORE_US), state(RUNNING))


@pytest.mark.parametrize("type_", sorted(TERMINAL))
def test_a_run_that_never_ran_starts_and_ends_at_once(type_: StateType) -> None:
    columns = run_columns(facts(PENDING), state(type_))
    assert (columns["start_time"], columns["end_time"]) == (NOW_US, NOW_US)


def test_the_first_end_stays_the_end() -> None:
    assert run_columns(facts(RUNNING, start_time_us=BEFORE_US), state(COMPLETED))["end_time"] == NOW_US
    again = run_columns(facts(FAILED, start_time_us=1, end_time_us=2), state(CANCELLED))
    assert again.keys() == STATE_COLUMNS


def test_leaving_the_end_takes_it_back() -> None:
    columns = run_columns(facts(FAILED, start_time_us=1, end_time_us=2), state(SCHEDULED, scheduled_time=iso(NOW_US)))
    assert columns["end_time"] is None


def test_time_in_running_adds_up() -> None:
    known = facts(RUNNING, start_time_us=BEFORE_US, total_run_time_us=5)
    assert run_columns(known, state(PAUSED))["total_run_time"] == 10_000_005
    assert run_columns(known, state(RUNNING))["total_run_time"] == 10_000_005
    assert "total_run_time" not in run_columns(facts(PAUSED, start_time_us=BEFORE_US), state(RUNNING))


def test_a_state_set_back_in_time_takes_no_run_time_away() -> None:
    backdated = state(COMPLETED, timestamp_us=BEFORE_US - 1)
    assert run_columns(facts(RUNNING, total_run_time_us=7), backdated)["total_run_time"] == 7


def test_the_first_state_sets_when_the_run_is_expected() -> None:
    new = facts(None, expected_start_time_us=None)
    later = NOW_US + 5
    assert run_columns(new, state(SCHEDULED, scheduled_time=iso(later)))["expected_start_time"] == later
    assert run_columns(new, state(PENDING))["expected_start_time"] == NOW_US
    assert "expected_start_time" not in run_columns(facts(None), state(SCHEDULED, scheduled_time=iso(later)))


def test_the_next_start_is_known_while_scheduled() -> None:
    later = state(SCHEDULED, scheduled_time=iso(NOW_US + 5))
    assert run_columns(facts(None), later)["next_scheduled_start_time"] == NOW_US + 5
    assert run_columns(facts(SCHEDULED), later)["next_scheduled_start_time"] == NOW_US + 5
    left = run_columns(facts(SCHEDULED), state(PENDING, scheduled_time=iso(NOW_US)))
    assert left["next_scheduled_start_time"] is None
    assert "next_scheduled_start_time" not in run_columns(facts(PENDING), state(RUNNING))


@pytest.mark.parametrize("current", [SCHEDULED, PENDING, RUNNING, FAILED])
def test_every_running_is_an_attempt(current: StateType) -> None:
    assert run_columns(facts(current, run_count=2), state(RUNNING))["run_count"] == 3
    assert "run_count" not in run_columns(facts(current, run_count=2), state(PAUSED))


def test_a_resumed_suspension_is_the_same_attempt() -> None:
    resumed = facts(PENDING, run_count=2, resuming=True)
    columns = run_columns(resumed, state(RUNNING))
    assert "run_count" not in columns
    assert columns["empirical_policy"] == {"resuming": False}
    assert run_columns(resumed, state(CANCELLED))["empirical_policy"] == {"resuming": False}
    assert "empirical_policy" not in run_columns(resumed, state(PENDING))


def test_clients_without_pauses_never_resume() -> None:
    old = facts(PENDING, run_count=2, resuming=True, api_version=(0, 8, 3))
    columns = run_columns(old, state(RUNNING))
    assert columns["run_count"] == 3
    assert "empirical_policy" not in columns


def test_the_mark_of_a_resumed_pause_is_for_the_state_after() -> None:
    columns = through(facts(PAUSED, run_count=1), RUNNING)
    assert columns["run_count"] == 2
    assert columns["empirical_policy"] == {"resuming": True}


def test_a_reset_policy_counts_the_attempt() -> None:
    columns = through(facts(FAILED, deployment_id="d", run_count=1, resuming=True), RUNNING)
    assert columns["run_count"] == 2
    assert columns["empirical_policy"] == {"resuming": False, "pause_keys": [], "retry_type": None}


def test_a_retry_is_scheduled_and_its_policy_reset() -> None:
    columns = through(facts(RUNNING, run_count=1, retries=1, retry_delay_seconds=3), FAILED)
    assert (columns["state_type"], columns["state_name"]) == ("SCHEDULED", "AwaitingRetry")
    assert columns["next_scheduled_start_time"] == NOW_US + 3_000_000
    assert columns["total_run_time"] == 10_000_000
    assert "end_time" not in columns
    assert columns["empirical_policy"] == {"resuming": False, "pause_keys": [], "retry_type": "in_process"}


def test_a_pause_adds_its_key_to_the_policy() -> None:
    columns = through(facts(RUNNING, pause_keys=frozenset({"b"})), PAUSED, pause_key="a")
    assert columns["empirical_policy"] == {"pause_keys": ["a", "b"]}


def test_a_task_run_counts_its_attempts() -> None:
    assert task_run_columns(task_facts(PENDING, run_count=1), state(RUNNING))["run_count"] == 2
    assert "run_count" not in task_run_columns(task_facts(RUNNING, run_count=1), state(COMPLETED))


def test_a_rerun_task_counts_anew_in_its_flows_attempt() -> None:
    known = task_facts(
        FAILED, run_count=3, flow_run_id="f", flow_run_state=state(RUNNING), parent_run_count=2, end_time_us=BEFORE_US
    )
    decision = decide_task(known, ProposedState(type=RUNNING))
    columns = task_run_columns(known, state(RUNNING), decision)
    assert (columns["run_count"], columns["flow_run_run_count"], columns["end_time"]) == (1, 2, None)
    pending = task_run_columns(known, state(PENDING), decide_task(known, ProposedState(type=PENDING)))
    assert pending["run_count"] == 0
    assert "flow_run_run_count" not in pending


def test_a_task_run_has_the_common_columns() -> None:
    columns = task_run_columns(task_facts(None, expected_start_time_us=None), state(COMPLETED))
    assert columns == {
        "state_id": "new",
        "state_type": "COMPLETED",
        "state_name": "Completed",
        "state_timestamp": NOW_US,
        "expected_start_time": NOW_US,
        "start_time": NOW_US,
        "end_time": NOW_US,
    }
