"""What the tests of this folder share."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemon import LiveDaemon
    from tests.support.git_server import GitServer
    from tests.support.http import Api
    from tests.support.prefect_user import PrefectUser

POOL = "managed"
DEPLOY = """
import json, sys
from prefect import flow

for one in json.loads(sys.argv[1]):
    given = flow.from_source(source=one["source"], entrypoint=one["entrypoint"])
    made = given.deploy(name=one["name"], work_pool_name=one["pool"], job_variables=one["job_variables"],
                        print_next_steps=False, **one["options"])
    print("\\nDEPLOYED", made)
"""
"""A script as in Prefect's own guide: code in a repository, deployed to a managed pool."""


@dataclass(kw_only=True)
class Place:
    """A live daemon and all that is around it."""

    folder: Path
    daemon: LiveDaemon
    user: PrefectUser
    git: GitServer
    secure_git: GitServer
    bundle: Path
    flows: str
    """The URL of the repository with the flows of this folder."""
    _deployed: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def api(self) -> Api:
        """The daemon's API."""
        return self.daemon.api

    def deployment(self, entrypoint: str, name: str | None = None, *, pool: str = POOL, source: str | None = None,
                   job_variables: dict[str, Any] | None = None, **options: Any) -> str:  # fmt: skip
        """The id of a deployment that was deployed by a script, made at most once."""
        return self.deployments(
            {"entrypoint": entrypoint, "name": name or entrypoint.partition(":")[2].replace("_", "-"), "pool": pool,
             "source": source or self.flows, "job_variables": job_variables or {}, "options": options}
        )[0]  # fmt: skip

    def deployments(self, *wanted: dict[str, Any]) -> list[str]:
        """As `deployment`, several with one script."""
        complete = [
            {"source": self.flows, "pool": POOL, "job_variables": {}, "options": {},
             "name": one["entrypoint"].partition(":")[2].replace("_", "-"), **one}
            for one in wanted
        ]  # fmt: skip
        keys = [(one["entrypoint"], one["name"]) for one in complete]
        with self._lock:
            missing = [one for one, key in zip(complete, keys, strict=True) if key not in self._deployed]
            if missing:
                done = self.user.python(DEPLOY, json.dumps(missing), timeout=150)
                ids = [line.split()[1] for line in done.out.splitlines() if line.startswith("DEPLOYED ")]
                for one, made in zip(missing, ids, strict=True):
                    self._deployed[one["entrypoint"], one["name"]] = made
            return [self._deployed[key] for key in keys]

    def submit(self, deployment_id: str, parameters: dict[str, Any] | None = None, **more: Any) -> str:
        """The id of a run of the deployment that is due now."""
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters or {}, **more}
        return str(self.api.post(f"/deployments/{deployment_id}/create_flow_run", body)["id"])

    def cancel(self, flow_run_id: str) -> dict[str, Any]:
        """The answer to a cancellation like the command line's."""
        return dict(self.api.post(f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING"}}))
