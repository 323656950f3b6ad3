"""A JSON client of the standard library, for what a test asks the daemon's API itself."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

TERMINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
ENDED = frozenset({"FINALIZED", "LOST"})
LAST_LINE_SECONDS = 60.0


class HttpError(AssertionError):
    """Another status than a test expected."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Api:
    """One API under its address, which ends with `/api` or with a workspace."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        # Never through a proxy of this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The parsed answer, None for an empty one. Raises HttpError for anything but 2xx."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            headers=self._headers,
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with self._opener.open(request, timeout=60) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise HttpError(error.code, error.read().decode(errors="replace")) from None
        return json.loads(content) if content else None

    def get(self, path: str) -> Any:
        """GET."""
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """POST."""
        return self.call("POST", path, {} if body is None else body)

    def run(self, flow_run_id: str) -> dict[str, Any]:
        """A flow run."""
        return dict(self.get(f"/flow_runs/{flow_run_id}"))

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Flow runs, the oldest first."""
        found = self.post("/flow_runs/filter", {"flow_runs": filters or None, "sort": "START_TIME_ASC"})
        return [dict(run) for run in found]

    def states(self, flow_run_id: str) -> list[str]:
        """The names of the states that a run went through, in their order."""
        return [state["name"] for state in self.get(f"/flow_run_states/?flow_run_id={flow_run_id}")]

    def logs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Every log line of a run, in their order; of one that has ended, the last one too: its state may be there before its output."""
        if self.run(flow_run_id)["state_type"] in TERMINAL:
            self._wait_until_read(flow_run_id)
        lines: list[dict[str, Any]] = []
        while True:
            page = self.post(
                "/logs/filter",
                {
                    "logs": {"flow_run_id": {"any_": [flow_run_id]}},
                    "sort": "TIMESTAMP_ASC",
                    "limit": 200,
                    "offset": len(lines),
                },
            )
            lines += page
            if len(page) < 200:
                return lines

    def _wait_until_read(self, flow_run_id: str) -> None:
        deadline = time.monotonic() + LAST_LINE_SECONDS
        while any(one["phase"] not in ENDED for one in self.get(f"/managed/flow_runs/{flow_run_id}/executions")):
            assert time.monotonic() < deadline, f"run {flow_run_id} has ended, and its execution has not"
            time.sleep(0.1)

    def text(self, flow_run_id: str) -> str:
        """The log of a run as text."""
        return "\n".join(line["message"] for line in self.logs(flow_run_id))

    def wait(
        self, flow_run_id: str, *, types: Collection[str] = TERMINAL, name: str | None = None, seconds: float = 120
    ) -> dict[str, Any]:
        """The run once its state has one of the types and, when one is given, the name; the test fails when it takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(flow_run_id)
            state = run["state"] or {"type": None, "name": None}
            if state["type"] in types and name in {None, state["name"]}:
                return run
            if time.monotonic() > deadline or (state["type"] in TERMINAL and not TERMINAL & set(types)):
                raise AssertionError(
                    f"run {run['name']} is {state}, not {name or sorted(types)}\nits log:\n{self.text(flow_run_id)}"
                )
            time.sleep(0.25)
