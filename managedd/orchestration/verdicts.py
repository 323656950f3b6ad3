"""How rules speak and how a table of them is read.

A rule votes on one kind of transition: nothing to say (None), `Amend` (go on, with this change) or `Refuse` (the vote ends here).
A refusal forgets what earlier rules amended, since the transition they amended does not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from managedd.model.flow_runs import ProposedState, RunFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from managedd.model.states import StateType


class Status(StrEnum):
    """The four answers a client knows."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    """Go on with the state in the answer instead."""
    WAIT = "WAIT"
    """Ask again after `delay_seconds`."""
    ABORT = "ABORT"
    """Stop working on this run."""


class Effect(StrEnum):
    """What the writer of the state does beside writing it."""

    EMIT_EVENT = "emit_event"
    """Publish `prefect.flow-run.<state name>`."""
    FREE_SLOT = "free_slot"
    """The run gave up its deployment's slot: wake those who wait for one."""
    CACHE_RESULT = "cache_result"
    """Remember the state under its `cache_key` until its `cache_expiration`."""
    ENQUEUE_TASK = "enqueue_task"
    """Hand the background task run to the task workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amend:
    """The transition may go on, changed like this."""

    state: ProposedState | None = None
    copied_details: Mapping[str, Any] = field(default_factory=dict)
    policy_changes: Mapping[str, Any] = field(default_factory=dict)
    effects: frozenset[Effect] = frozenset()
    resets_run_count: bool = False
    flow_run_run_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The transition does not happen; `state`, if any, is written in its place."""

    status: Status
    reason: str
    state: ProposedState | None = None
    delay_seconds: int | None = None
    policy_changes: Mapping[str, Any] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """The answer's `details`, in the client's words."""
        answer: dict[str, Any] = {"type": f"{self.status.value.lower()}_details", "reason": self.reason}
        if self.delay_seconds is not None:
            answer["delay_seconds"] = self.delay_seconds
        return answer


Verdict = Amend | Refuse | None
Facts = TypeVar("Facts", bound=RunFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Facts]):
    """One row of a table: which transitions it concerns, and its vote on them.

    A `bookkeeping` row has no vote on the proposal; it looks at what is going to be written, whoever chose it.
    """

    name: str
    from_: frozenset[StateType | None]
    to: frozenset[StateType]
    judge: Callable[[Facts, ProposedState], Verdict]
    bookkeeping: bool = False

    def concerns(self, origin: StateType | None, target: StateType) -> bool:
        return origin in self.from_ and target in self.to


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is answered and what is written.

    `state` is what to write, accepted or in its place, with everything but id and timestamp; None: nothing is written and the run's
    current state is the answer's. `policy_changes` and `copied_details` are JSON values.
    """

    status: Status
    state: ProposedState | None
    details: Mapping[str, Any]
    policy_changes: Mapping[str, Any] = field(default_factory=dict)
    copied_details: Mapping[str, Any] = field(default_factory=dict)
    effects: frozenset[Effect] = frozenset()
    resets_run_count: bool = False
    flow_run_run_count: int | None = None

    @property
    def write(self) -> bool:
        """Whether a new state row comes of this (HTTP 201, else 200)."""
        return self.state is not None

    def with_state(self, state: ProposedState) -> Decision:
        """The same decision over another wording of its state."""
        return replace(self, state=state)


def hear(rules: Iterable[Rule[Facts]], facts: Facts, proposed: ProposedState) -> Decision:
    """The decision of `rules`, asked in their order, on `proposed`."""
    origin, intended = facts.current_type, proposed.type
    state: ProposedState | None = proposed
    refusal: Refuse | None = None
    amended = Amend()
    for rule in rules:
        if state is None or (refusal is not None and not rule.bookkeeping):
            continue
        if not rule.concerns(origin, state.type if rule.bookkeeping else intended):
            continue
        verdict = rule.judge(facts, state)
        if isinstance(verdict, Refuse):
            refusal, state = verdict, verdict.state
            amended = Amend(policy_changes=verdict.policy_changes)
        elif isinstance(verdict, Amend):
            amended = _both(amended, verdict)
            state = verdict.state or state
            if verdict.resets_run_count:
                facts = replace(facts, run_count=0)
    return Decision(
        status=Status.ACCEPT if refusal is None else refusal.status,
        state=_remembering(state, proposed) if refusal is not None and state is not None else state,
        details={"type": "accept_details"} if refusal is None else refusal.details(),
        policy_changes=amended.policy_changes,
        copied_details=amended.copied_details,
        effects=amended.effects,
        resets_run_count=amended.resets_run_count,
        flow_run_run_count=amended.flow_run_run_count,
    )


def _both(first: Amend, second: Amend) -> Amend:
    return Amend(
        copied_details={**first.copied_details, **second.copied_details},
        policy_changes={**first.policy_changes, **second.policy_changes},
        effects=first.effects | second.effects,
        resets_run_count=first.resets_run_count or second.resets_run_count,
        flow_run_run_count=first.flow_run_run_count if second.flow_run_run_count is None else second.flow_run_run_count,
    )


def _remembering(replacement: ProposedState, proposed: ProposedState) -> ProposedState:
    # A client whose answer got lost sends the same proposal again. Without its transition_id on the replacement, a retried FAILED would
    # meet AwaitingRetry, be accepted, and cost the run its retry.
    return replacement.detailed(transition_id=proposed.details.get("transition_id"))
