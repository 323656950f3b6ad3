"""The rules of task runs, in the order in which they are asked.

The engine of Prefect 3 decides over its tasks itself and reports them as events; these rules meet only what comes over HTTP: the task
runs that stand for subflows and for `run_deployment`, background tasks (`.delay()`), and scripts.

Finding a cached state and remembering one are the store's: the loader puts what it found into `TaskRunFacts.cached_state`, and the
writer follows `Effect.CACHE_RESULT`. Slots of tag limits are counted from rows, so that releasing one needs no rule.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from managedd.model.flow_runs import ProposedState, TaskRunFacts, iso_after
from managedd.model.states import TERMINAL, StateType
from managedd.orchestration.run_rules import (
    ANY_OR_NONE,
    ANY_TYPE,
    copy_scheduled_time,
    has_persisted_result,
    prevent_pending_transitions,
    types,
    wait_for_scheduled_time,
)
from managedd.orchestration.verdicts import Amend, Effect, Refuse, Rule, Status, Verdict

MAX_CACHE_KEY_LENGTH = 2000
"""Characters; Prefect's own bound."""


def retrieve_cached(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    cached = facts.cached_state
    if cached is None or not proposed.details.get("cache_key") or proposed.details.get("refresh_cache"):
        return None
    state = ProposedState(
        type=cached.type, name="Cached", message=cached.message, data=cached.data, details=dict(cached.details)
    )
    return Refuse(status=Status.REJECT, reason="Retrieved state from cache", state=state)


def handle_terminal_states(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    current = facts.current
    if current is None:
        return None
    if proposed.type in {StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED}:
        return Refuse(status=Status.ABORT, reason=f"Run is already {current.type.value}.")
    if current.type is StateType.COMPLETED and has_persisted_result(current.data):
        return Refuse(status=Status.REJECT, reason="This run is already completed.")
    if proposed.type in TERMINAL:
        return None
    # A new attempt of the flow: the task's retries start anew with it.
    again = proposed.type is StateType.RUNNING and facts.has_flow_run
    retried = again and facts.flow_run_run_count < facts.parent_run_count
    return Amend(resets_run_count=True, state=replace(proposed, name="Retrying") if retried else None)


def prevent_running_from_stopped_flow(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    if not facts.has_flow_run:
        return None
    parent = facts.flow_run_state
    if parent is not None and parent.type is StateType.RUNNING:
        return None
    if parent is None or parent.type is not StateType.PAUSED:
        return Refuse(status=Status.ABORT, reason="The enclosing flow must be running to begin task execution.")
    # The parent's deadline is the task's too: it can't start after the flow has given up waiting.
    paused = ProposedState(type=StateType.PAUSED, name="NotReady").detailed(
        pause_timeout=parent.details.get("pause_timeout"),
        pause_reschedule=parent.details.get("pause_reschedule"),
    )
    return Refuse(
        status=Status.REJECT,
        reason=f"The flow run {facts.flow_run_id} is paused; its tasks can start when it is resumed.",
        state=paused,
    )


def secure_tag_slots(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    shut = [limit.tag for limit in facts.tag_limits if limit.limit <= 0]
    if shut:
        return Refuse(
            status=Status.ABORT, reason=f'The concurrency limit on tag "{shut[0]}" is 0: this task could never run.'
        )
    full = [limit.tag for limit in facts.tag_limits if limit.slots_taken >= limit.limit]
    if not full:
        return None
    reason = f"Concurrency limit reached for tags: {', '.join(full)}"
    return Refuse(status=Status.WAIT, reason=reason, delay_seconds=facts.tag_wait_seconds)


def copy_parameters_id(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    parameters_id = facts.current_detail("task_parameters_id")
    if parameters_id is None or proposed.details.get("task_parameters_id") is not None:
        return None
    return Amend(
        state=proposed.detailed(task_parameters_id=parameters_id),
        copied_details={"task_parameters_id": parameters_id},
    )


def retry_failed_tasks(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    if proposed.details.get("retriable") is False:  # the task's own retry condition said no
        return None
    if facts.retries is None or facts.run_count > facts.retries:
        return None
    state = ProposedState(
        type=StateType.SCHEDULED,
        name="AwaitingRetry",
        message=proposed.message,
        data=proposed.data,
        details={"scheduled_time": iso_after(facts.now_us, retry_delay_seconds(facts))},
    )
    return Refuse(status=Status.REJECT, reason="Retrying", state=state)


def retry_delay_seconds(facts: TaskRunFacts) -> float:
    """How long the task run waits before its next attempt.

    Jitter spreads the delay evenly over ± `retry_jitter_factor` of itself. It is drawn from the run's id and attempt, not from chance,
    so that a decision repeats itself; what jitter is for, keeping many runs apart, needs no more.
    """
    delay = facts.retry_delay_seconds or 0
    if isinstance(delay, tuple):
        delay = delay[max(0, min(facts.run_count - 1, len(delay) - 1))]
    factor = facts.retry_jitter_factor or 0
    if factor <= 0 or delay <= 0:
        return delay
    digest = hashlib.sha256(f"{facts.run_id}/{facts.run_count}".encode()).digest()
    draw = int.from_bytes(digest[:8]) / 2**64  # in [0, 1)
    return max(0.0, delay * (1 + factor * (2 * draw - 1)))


def rename_reruns(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    if facts.current is None or facts.run_count <= 0:
        return None
    return Amend(state=replace(proposed, name="Retrying" if facts.current.name == "AwaitingRetry" else "Rerunning"))


def track_flow_run_attempt(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    return Amend(flow_run_run_count=facts.parent_run_count) if facts.has_flow_run else None


def insert_into_cache(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    cache_key = proposed.details.get("cache_key")
    if not isinstance(cache_key, str) or not cache_key:
        return None
    if len(cache_key) <= MAX_CACHE_KEY_LENGTH:
        return Amend(effects=frozenset({Effect.CACHE_RESULT}))
    # The result stands, only the key does not: the state is written without it, and the client is told why.
    return Refuse(
        status=Status.REJECT,
        reason=f"Cache key exceeded maximum allowed length of {MAX_CACHE_KEY_LENGTH} characters.",
        state=proposed.detailed(cache_key=None, cache_expiration=None),
    )


def enqueue_deferred(facts: TaskRunFacts, proposed: ProposedState) -> Verdict:
    return Amend(effects=frozenset({Effect.ENQUEUE_TASK})) if proposed.details.get("deferred") else None


SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
_TO_RUNNING = frozenset({RUNNING})

_RETRIEVE = Rule(name="CacheRetrieval", from_=ANY_OR_NONE, to=_TO_RUNNING, judge=retrieve_cached)
_TERMINAL = Rule(
    name="HandleTaskTerminalStateTransitions", from_=types(*TERMINAL), to=ANY_TYPE, judge=handle_terminal_states
)
_COPY_TIME: Rule[TaskRunFacts] = Rule(
    name="CopyScheduledTime", from_=types(SCHEDULED), to=frozenset({PENDING}), judge=copy_scheduled_time
)
_ENDING: tuple[Rule[TaskRunFacts], ...] = (
    Rule(name="WaitForScheduledTime", from_=types(SCHEDULED, PENDING), to=_TO_RUNNING, judge=wait_for_scheduled_time),
    Rule(name="RetryFailedTasks", from_=types(RUNNING), to=frozenset({StateType.FAILED}), judge=retry_failed_tasks),
    Rule(name="RenameReruns", from_=ANY_OR_NONE, to=_TO_RUNNING, judge=rename_reruns),
    Rule(name="UpdateFlowRunTrackerOnTasks", from_=ANY_OR_NONE, to=_TO_RUNNING, judge=track_flow_run_attempt),
    Rule(name="CacheInsertion", from_=ANY_OR_NONE, to=frozenset({StateType.COMPLETED}), judge=insert_into_cache),
)

TASK_RULES: tuple[Rule[TaskRunFacts], ...] = (
    _RETRIEVE,
    _TERMINAL,
    Rule(
        name="PreventRunningTasksFromStoppedFlows",
        from_=ANY_OR_NONE,
        to=_TO_RUNNING,
        judge=prevent_running_from_stopped_flow,
    ),
    Rule(name="SecureTaskConcurrencySlots", from_=ANY_OR_NONE, to=_TO_RUNNING, judge=secure_tag_slots),
    _COPY_TIME,
    *_ENDING,
)
"""Every unforced proposal for a task run that an engine works on."""

BACKGROUND_TASK_RULES: tuple[Rule[TaskRunFacts], ...] = (
    Rule(
        name="PreventPendingTransitions",
        from_=types(PENDING, RUNNING, StateType.CANCELLING, StateType.CANCELLED),
        to=frozenset({PENDING}),
        judge=prevent_pending_transitions,
    ),
    _RETRIEVE,
    _TERMINAL,
    _COPY_TIME,
    Rule(
        name="CopyTaskParametersID",
        from_=types(SCHEDULED, PENDING),
        to=frozenset({PENDING, RUNNING}),
        judge=copy_parameters_id,
    ),
    *_ENDING,
    Rule(
        name="EnqueueScheduledTasks",
        from_=ANY_OR_NONE,
        to=frozenset({SCHEDULED}),
        judge=enqueue_deferred,
        bookkeeping=True,
    ),
)
"""Proposals marked `deferred`, forced or not: a task worker takes the run, PENDING is the lock between workers."""

MINIMAL_TASK_RULES: tuple[Rule[TaskRunFacts], ...] = ()
"""A forced proposal: nothing stands in its way."""
