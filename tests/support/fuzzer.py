"""Requests and socket messages that nobody means: made from our own OpenAPI document, a little or much beside what it says.

Half of what is made is as the document wants it, so that the other half comes past the first check; ids that were answered come back.
"""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

NASTY_TEXTS: Final = (
    "", " ", "\0", "a\0b", "%", "_", "%_%", "'", '"', "\\", "';--", "../../x", "null", "None", "true", "0", "-1", "1e999", "NaN", "\r\n", "\u202e", "\ud83d\ude00",
    "\x7f", "é" * 300, "x" * 999, "x" * 1_001, "x" * 70_000, "{{ x }}", "{{ prefect.blocks.secret.x }}", "{% x %}", "{{" * 500, "[" * 3_000, "* * * * *",
    "@every", "0 0 31 2 *", "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30", "RRULE:FREQ=DAILY\nRRULE:FREQ=DAILY", "P1D", "PT1S", "P99999999999D", "prefect:managed",
    "process", "UTC", "Europe/Berlin", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2026-02-30", "9999-12-31T23:59:59.999999Z", "default", "(a+)+$",
    "[", "(?<x", "$ref", "#/definitions/x", "http://127.0.0.1/", "file:///etc/passwd", "prefect.flow-run.Completed", "prefect.resource.id", "+x -y",
)  # fmt: skip
NASTY_NUMBERS: Final = (
    0, 1, -1, 2, 199, 200, 201, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400, 0.1, -0.0, 1e-320, 1e308, 1e18, 86_400, 253402300800,
)  # fmt: skip
NASTY_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"a": {"a": []}}},
    "x",
    0,
    1.5,
)
NASTY_BODIES: Final = (
    b"", b"null", b"[]", b"{}", b"0", b'""', b"{", b"[" * 5_000, b'{"a":' * 300, b"\xff\xfe", b'{"name":"\\ud800"}', b'{"name":1,"name":2}', b"NaN", b"[1e999]",
    b'{"limit":' + b"9" * 5_000 + b"}", b"\xef\xbb\xbf{}", b"[" + b"{}," * 2_000 + b"{}]", b" " * 10_000, b'{"a":1}trailing', b"\0",
)  # fmt: skip
HEADERS: Final[tuple[dict[str, str], ...]] = (
    {"X-PREFECT-API-VERSION": "0.8.4"},
    {"X-PREFECT-API-VERSION": "x" * 100},
    {"X-PREFECT-API-VERSION": "1.2.³"},
    {"Content-Encoding": "gzip"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Bearer " + "x" * 2_000},
    {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "gopher", "Forwarded": 'for="'},
    {"Accept": "text/html", "Range": "bytes=0-1"},
    {"If-None-Match": "*", "Prefect-Csrf-Token": "x", "Prefect-Csrf-Client": "x"},
    {"Expect": "200-no"},
)
READING: Final = ("/filter", "/count", "/paginate", "/history", "/count-by/{countable}")
"""How operations end that are asked with a body and change nothing."""
KEPT: Final = 400
"""Ids that are remembered."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request."""

    operation: str
    method: str
    path: str
    """With its query, percent-encoded."""
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Fuzzer:
    """Makes attempts; the same ones for the same seed and answers."""

    def __init__(self, document: dict[str, Any], seed: int, *, reads: bool = False) -> None:
        """With `reads`, attempts change nothing: they are to operations that only read."""
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._random = Random(seed)
        self._known: list[str] = []
        self.seen: Counter[str] = Counter()
        self._operations = [
            (method.upper(), path, declared)
            for path, methods in document["paths"].items()
            for method, declared in methods.items()
            if method in {"get", "post", "put", "patch", "delete", "head"}
            and (not reads or method in {"get", "head"} or path.endswith(READING))
        ]

    @property
    def operations(self) -> int:
        """How many there are."""
        return len(self._operations)

    def attempt(self) -> Attempt:
        """One request to some operation."""
        method, path, declared = self._random.choice(self._operations)
        self.seen[f"{method} {path}"] += 1
        query = []
        for parameter in declared.get("parameters", ()):
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", quote(self._segment(parameter["schema"]), safe=""))
            elif parameter["in"] == "query" and (parameter.get("required") or self._chance(0.5)):
                name, times = quote(parameter["name"]), self._random.choice((1, 1, 1, 3))
                values = [self._segment(parameter["schema"])[:2_000] for _ in range(times)]
                query += [f"{name}={quote(value, safe='')}" for value in values]
        headers = {"Content-Type": "application/json"}
        if self._chance(0.05):
            headers |= self._random.choice(HEADERS)
        body = None
        if "requestBody" in declared:
            schema = declared["requestBody"]["content"]["application/json"]["schema"]
            body = self._random.choice(NASTY_BODIES) if self._chance(0.05) else self._encoded(self.value(schema))
        text = path.removeprefix("/api") + ("?" + "&".join(query) if query else "")
        return Attempt(operation=f"{method} {path}", method=method, path=text, body=body, headers=headers)

    def learn(self, answer: Any) -> None:
        """The ids and names of an answer come back in later attempts."""
        if isinstance(answer, list):
            for each in answer[:5]:
                self.learn(each)
        elif isinstance(answer, dict):
            for key, value in answer.items():
                if isinstance(value, dict | list):
                    self.learn(value)
                elif isinstance(value, str) and (key.endswith("id") or key in {"name", "key", "slug", "tag"}) and value:
                    self._keep(value)

    def _keep(self, value: str) -> None:
        if len(self._known) < KEPT:
            self._known.append(value)
        else:
            self._known[self._random.randrange(KEPT)] = value

    # --- values --------------------------------------------------------------------------------------------------------------

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """Something for the schema, mostly as it says."""
        if self._chance(0.04):
            return self._nasty()
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rsplit("/", 1)[1]], depth)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return self.value(self._random.choice(schema[word]), depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                few = 0 if depth > 6 else self._random.choice((0, 1, 1, 2, 3, 30))
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(few)]
            case "string":
                return self._text(schema)
            case "integer":
                return (
                    self._random.choice((0, 1, 2, 10, 200)) if self._chance(0.8) else self._random.choice(NASTY_NUMBERS)
                )
            case "number":
                return (
                    self._random.choice((0.5, 1, 10, 3600)) if self._chance(0.8) else self._random.choice(NASTY_NUMBERS)
                )
            case "boolean":
                return self._chance(0.5)
            case "null":
                return None
        return self._random.choice(NASTY_VALUES)

    def _object(self, schema: dict[str, Any], depth: int) -> Any:
        required = set(schema.get("required", ()))
        made = {
            name: self.value(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if (name in required and self._chance(0.98)) or self._chance(0.35 if depth < 5 else 0.05)
        }
        if not schema.get("properties"):
            more = schema.get("additionalProperties")
            inner = more if isinstance(more, dict) else {}
            made = {self._text({}): self.value(inner, depth + 1) for _ in range(self._random.randrange(3))}
        if self._chance(0.02):
            made[self._text({})] = self._nasty()
        return made

    def _text(self, schema: dict[str, Any]) -> str:
        if self._known and self._chance(0.5):
            return self._random.choice(self._known)
        match schema.get("format"):
            case "uuid":
                return str(UUID(int=self._random.getrandbits(128)))
            case "date-time":
                moment = datetime.now(UTC) + timedelta(seconds=self._random.uniform(-1e7, 1e7))
                return moment.isoformat() if self._chance(0.9) else self._random.choice(NASTY_TEXTS)
        if self._chance(0.2):
            return self._random.choice(NASTY_TEXTS)
        return "".join(self._random.choice(string.ascii_lowercase) for _ in range(self._random.randrange(1, 12)))

    def _segment(self, schema: dict[str, Any]) -> str:
        made = self.value(schema)
        text = made if isinstance(made, str) else json.dumps(made)
        return text.encode("utf-8", "replace").decode()[:4_000]

    def _nasty(self) -> Any:
        return self._random.choice(self._random.choice((NASTY_TEXTS, NASTY_NUMBERS, NASTY_VALUES)))

    def _encoded(self, value: Any) -> bytes:
        try:
            body = json.dumps(value, allow_nan=True).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            return b"{}"
        if self._chance(0.03) and body:
            cut = self._random.randrange(len(body))
            body = (
                body[:cut]
                + self._random.choice((b"", b"\0", b"}", b'"', b"\xff", b"\\u0000", b"9" * 50))
                + body[cut + 1 :]
            )
        return body

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    # --- sockets -------------------------------------------------------------------------------------------------------------

    def message(self) -> bytes | str:
        """Something for a socket: text as text, anything else as a binary frame."""
        kind = self._random.randrange(8)
        if kind == 0:
            return self._random.choice(NASTY_BODIES)
        if kind == 1:
            return self._random.choice(NASTY_BODIES).decode("utf-8", "replace")
        if kind == 2:
            return json.dumps(
                {"type": self._random.choice(("auth", "filter", "event", None, 1)), "token": self._nasty_json()}
            )
        if kind in {3, 4}:
            name = self._random.choice(("EventFilter", "LogFilter"))
            return json.dumps(
                {"type": "filter", "filter": _plain(self.value(self._schemas[name])), "backfill": self._chance(0.5)}
            )
        return json.dumps(_plain(self.value(self._schemas["Event"])))

    def _nasty_json(self) -> Any:
        return _plain(self._nasty())


def _plain(value: Any) -> Any:
    """`value` without what JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
