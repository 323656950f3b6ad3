"""What pages say of a deployment: its schedules, its parameters, and the values that a run would begin with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from managedd.ui import words, written

if TYPE_CHECKING:
    from multidict import MultiMapping

PAGE_SIZE: Final = 50
MAX_TEXT_CHARS: Final = 200
MAX_TAGS: Final = 50
MAX_OFFSET: Final = 1_000_000
MAX_JSON_CHARS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which deployments a list shows."""

    text: str = ""
    """In the name of the deployment or its flow."""
    tags: tuple[str, ...] = ()
    """All of these."""
    pool: str = ""
    offset: int = 0

    @property
    def query(self) -> str:
        """What makes a page of this list, behind the `?`, without the offset; ends with `&` unless it is empty."""
        pairs = [("q", self.text), *(("tag", tag) for tag in self.tags), ("pool", self.pool)]
        given = [(name, value) for name, value in pairs if value]
        return urlencode(given) + "&" if given else ""

    @property
    def body(self) -> dict[str, Any]:
        """The filters of `POST /deployments/filter` and its like."""
        deployments: dict[str, Any] = {}
        if self.text:
            deployments["flow_or_deployment_name"] = {"like_": self.text}
        if self.tags:
            deployments["tags"] = {"all_": list(self.tags)}
        found: dict[str, Any] = {"deployments": deployments} if deployments else {}
        return found | ({"work_pools": {"name": {"any_": [self.pool]}}} if self.pool else {})


def chosen(query: MultiMapping[str]) -> Chosen:
    """What the page's address asks for; what can't be is left out."""
    tags = [tag.strip()[:MAX_TEXT_CHARS] for each in query.getall("tag", []) for tag in each.split(",")]
    offset = query.get("offset", "")
    is_offset = offset.isascii() and offset.isdigit() and len(offset) < 8 and int(offset) <= MAX_OFFSET
    return Chosen(
        text=query.get("q", "").strip()[:MAX_TEXT_CHARS],
        tags=tuple(dict.fromkeys(tag for tag in tags if tag))[:MAX_TAGS],
        pool=query.get("pool", "")[:MAX_TEXT_CHARS],
        offset=int(offset) if is_offset else 0,
    )


def schedule_text(schedule: Mapping[str, Any]) -> str:
    """`0 9 * * *`, `every 15 min`, or the rule: what a schedule says, without its zone."""
    if schedule.get("cron") is not None:
        return str(schedule["cron"])
    if schedule.get("interval") is not None:
        return f"every {words.duration(float(schedule['interval']))}"
    return str(schedule.get("rrule", ""))


def schedule_kind(schedule: Mapping[str, Any]) -> str:
    """`Cron`, `Interval` or `Rule`."""
    return (
        "Cron" if schedule.get("cron") is not None else "Interval" if schedule.get("interval") is not None else "Rule"
    )


def span_text(seconds: float) -> str:
    """`1 d 2 h 30 min 0.5 s`: all of a length of time, as a form's field reads it back."""
    micros, parts = round(seconds * 1_000_000), []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        count, micros = divmod(micros, size * 1_000_000)
        parts += [f"{count} {unit}"] if count else []
    if micros:
        parts.append(f"{micros / 1_000_000:.6f}".rstrip("0").rstrip(".") + " s")
    return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a deployment, as a table shows it."""

    name: str
    type: str
    is_required: bool
    value: str | None
    """That the deployment gives; None: none."""
    default: str | None
    """That the flow gives; None: none."""
    help: str


def parameters(schema: Any, given: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a flow in the order of its line, then those that only the deployment knows."""
    properties = _mapping(_mapping(schema).get("properties"))
    required = _mapping(schema).get("required")
    needed = required if isinstance(required, list) else []
    ordered = sorted(properties.items(), key=lambda each: _position(each[1]))
    found = [
        Parameter(
            name=str(name),
            type=type_of(part),
            is_required=name in needed,
            value=written.as_json(given[name]) if name in given else None,
            default=written.as_json(part["default"]) if isinstance(part, Mapping) and "default" in part else None,
            help=str(_mapping(part).get("description") or ""),
        )
        for name, part in ordered
    ]
    others = (name for name in given if name not in properties)
    return found + [
        Parameter(name=name, type="", is_required=False, value=written.as_json(given[name]), default=None, help="")
        for name in others
    ]


def type_of(part: Any) -> str:
    """`integer`, `string or null`, `"a" or "b"`: what a schema takes, in a few words; empty: anything."""
    part = _mapping(part)
    if isinstance(choices := part.get("enum"), list):
        return " or ".join(written.as_json(each) for each in choices[:8]) + (" …" if len(choices) > 8 else "")
    for union in ("anyOf", "oneOf"):
        if isinstance(among := part.get(union), list):
            return " or ".join(dict.fromkeys(text for each in among[:8] if (text := type_of(each))))
    if isinstance(reference := part.get("$ref"), str):
        return reference.rpartition("/")[2]
    if isinstance(referred := part.get("allOf"), list) and len(referred) == 1:
        return type_of(referred[0])
    kind = part.get("type")
    if isinstance(kind, list):
        return " or ".join(str(each) for each in kind[:8])
    if kind == "array" and (inner := type_of(part.get("items"))):
        return f"list of {inner}"
    return str(part.get("format") or kind or "")


def is_missing(schema: Any, given: Mapping[str, Any]) -> bool:
    """Whether a run can't begin without somebody giving a parameter."""
    required = _mapping(schema).get("required")
    return isinstance(required, list) and any(name not in given for name in required)


def with_defaults(schema: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in which `values` are the defaults of its properties: what counts where a form is left empty."""
    properties = {
        name: {**part, "default": values[name]} if isinstance(part, Mapping) and name in values else part
        for name, part in _mapping(_mapping(schema).get("properties")).items()
    }
    return {**_mapping(schema), "properties": properties}


def json_text(value: Any) -> str:
    """Several lines of JSON, cut off where nobody reads on."""
    text = written.as_json(value, indent=2)
    return text if len(text) <= MAX_JSON_CHARS else text[:MAX_JSON_CHARS] + "\n…"


def _position(part: Any) -> float:
    found = written.number(_mapping(part).get("position"))
    return float("inf") if found is None else found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
