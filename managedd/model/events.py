"""Events: what happened to what. Pure values, and builders for the events that the server itself makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from managedd.clock import from_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from managedd.model.states import State

RESOURCE_ID: Final = "prefect.resource.id"
RESOURCE_ROLE: Final = "prefect.resource.role"
RESOURCE_NAME: Final = "prefect.resource.name"
END_CAUSE: Final = "managedd.end-cause"
"""A label of a run that this server has ended."""
EXPLAINED: Final = "managedd.flow-run.explained"
POOL_TYPE: Final = "prefect.work-pool.type"

MESSAGE_MAX_CHARS: Final = 100_000
"""State messages may hold whole results; a longer one loses its middle in events."""
TIGHT_US: Final = timedelta(minutes=5) // timedelta(microseconds=1)
"""An event names the one that it follows when they are closer than this: further apart their order is plain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `resource` and each of `related` are labels; `RESOURCE_ID` is always among them."""

    id: str
    occurred_us: int
    event: str
    resource: Mapping[str, str]
    related: Sequence[Mapping[str, str]] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)
    follows: str | None = None

    @property
    def resource_id(self) -> str:
        return self.resource[RESOURCE_ID]

    @property
    def order(self) -> tuple[int, str]:
        """What sorts events of one resource: ids of one sender are time-ordered, so they break ties."""
        return self.occurred_us, self.id

    def related_in_role(self, role: str) -> Mapping[str, str] | None:
        """The first related resource in that role, or None."""
        return next((labels for labels in self.related if labels.get(RESOURCE_ROLE) == role), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A thing that a run belongs to."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    type: str | None = None
    """A work pool's type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSurroundings:
    """A flow run and what it belongs to, as its events name them."""

    run: Named
    run_count: int
    flow: Named | None = None
    deployment: Named | None = None
    work_queue: Named | None = None
    work_pool: Named | None = None
    task_run: Named | None = None
    """The task run that stands for a subflow in its parent."""
    created_by: Mapping[str, Any] | None = None


def state_event(
    around: RunSurroundings, state: State, previous: State | None, about: Mapping[str, Any] | None = None
) -> Event:
    """The event `prefect.flow-run.<state name>`: its id is the state's, so that a state is told once.

    `about` is why this server ended the run, in a payload and a label of its own.
    """
    return Event(
        id=state.id,
        occurred_us=state.timestamp_us,
        event=f"prefect.flow-run.{state.name}",
        resource=_resource(around, state, about),
        related=tuple(_related(around)),
        payload={
            "intended": {"from": None if previous is None else previous.type.value, "to": state.type.value},
            "initial_state": None if previous is None else _state_payload(previous),
            "validated_state": _state_payload(state),
            **_payload_of(about),
        },
        follows=_followed(state, previous),
    )


def explaining_event(
    event_id: str, occurred_us: int, around: RunSurroundings, state: State, about: Mapping[str, Any]
) -> Event:
    """The event `managedd.flow-run.explained`: why the run is in a state that its client has told and could not explain."""
    return Event(
        id=event_id,
        occurred_us=occurred_us,
        event=EXPLAINED,
        resource=_resource(around, state, about),
        related=tuple(_related(around)),
        payload={"validated_state": _state_payload(state), **_payload_of(about)},
        follows=state.id if abs(occurred_us - state.timestamp_us) < TIGHT_US else None,
    )


def _resource(around: RunSurroundings, state: State, about: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        RESOURCE_ID: f"prefect.flow-run.{around.run.id}",
        RESOURCE_NAME: around.run.name,
        "prefect.run-count": str(around.run_count),
        "prefect.state-message": shortened(state.message),
        "prefect.state-name": state.name,
        "prefect.state-timestamp": from_us(state.timestamp_us).isoformat(),
        "prefect.state-type": state.type.value,
        # Automations choose by labels, and not by what is in the payload.
        **({END_CAUSE: str(about["cause"])} if about else {}),
    }


def _payload_of(about: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"managedd": dict(about)} if about else {}


def shortened(message: str | None) -> str:
    """`message`, or its beginning and end when it is longer than `MESSAGE_MAX_CHARS`."""
    if not message:
        return ""
    if len(message) <= MESSAGE_MAX_CHARS:
        return message
    half = MESSAGE_MAX_CHARS // 2
    return f"{message[:half]} … {len(message) - 2 * half} characters left out … {message[-half:]}"


def _state_payload(state: State) -> dict[str, str]:
    payload = {"type": state.type.value, "name": state.name}
    if state.message:
        payload["message"] = shortened(state.message)
    if state.type.value == "PAUSED":
        payload["pause_reschedule"] = str(bool(state.details.get("pause_reschedule"))).lower()
    return payload


def _followed(state: State, previous: State | None) -> str | None:
    if previous is None or abs(state.timestamp_us - previous.timestamp_us) >= TIGHT_US:
        return None
    return previous.id


def _related(around: RunSurroundings) -> Iterator[dict[str, str]]:
    kinds = {
        "flow": around.flow,
        "deployment": around.deployment,
        "work-queue": around.work_queue,
        "work-pool": around.work_pool,
        "task-run": around.task_run,
    }
    yield from related_things(kinds, around.run.tags)
    yield from _creator(around.created_by)


def related_to_run(around: RunSurroundings) -> Iterator[dict[str, str]]:
    """The run, and what it belongs to, as related resources of something that happened to it."""
    yield {
        RESOURCE_ID: f"prefect.flow-run.{around.run.id}",
        RESOURCE_ROLE: "flow-run",
        RESOURCE_NAME: around.run.name,
    }
    yield from _related(around)


def related_things(kinds: Mapping[str, Named | None], own_tags: Iterable[str]) -> Iterator[dict[str, str]]:
    """Things as related resources in the roles of their kinds, and every tag of theirs and of `own_tags`."""
    tags = set(own_tags)
    for kind, thing in kinds.items():
        if thing is None:
            continue
        tags.update(thing.tags)
        labels = {RESOURCE_ID: f"prefect.{kind}.{thing.id}", RESOURCE_ROLE: kind, RESOURCE_NAME: thing.name}
        if thing.type is not None:
            labels[POOL_TYPE] = thing.type
        yield labels
    for tag in sorted(tags):
        yield {RESOURCE_ID: f"prefect.tag.{tag}", RESOURCE_ROLE: "tag"}


def _creator(created_by: Mapping[str, Any] | None) -> Iterator[dict[str, str]]:
    kind = {"DEPLOYMENT": "deployment", "AUTOMATION": "automation"}.get((created_by or {}).get("type") or "")
    if created_by is None or kind is None:
        return
    labels = {RESOURCE_ID: f"prefect.{kind}.{created_by.get('id')}", RESOURCE_ROLE: "creator"}
    if created_by.get("display_value"):
        labels[RESOURCE_NAME] = created_by["display_value"]
    yield labels
