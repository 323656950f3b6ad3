#!/usr/bin/python3 -ES
"""A stand-in for the engine inside a run: says that it runs, leaves a mark of having started, prints numbered lines, says how it ended.

Every call is made again until the API answers, as the real client makes its own while a server says that it restarts.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

API = os.environ["PREFECT_API_URL"]
RUN = os.environ["PREFECT__FLOW_RUN_ID"]
# In Server form, or in Cloud's, which other workspaces than the default one have.
AUTH = os.environ.get("PREFECT_API_AUTH_STRING")
CREDENTIAL = f"Basic {base64.b64encode(AUTH.encode()).decode()}" if AUTH else f"Bearer {os.environ['PREFECT_API_KEY']}"
GIVE_UP_SECONDS = 90.0


def call(method: str, path: str, body: object = None) -> object:
    request = urllib.request.Request(
        API + path,
        method=method,
        headers={"Authorization": CREDENTIAL, "Content-Type": "application/json"},
        data=None if body is None else json.dumps(body).encode(),
    )
    end = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            # The server restarts; or a concurrency limit has no slot free.
            if error.code not in {503, 423}:
                raise
        except OSError:
            pass
        if time.monotonic() > end:
            raise SystemExit(f"{method} {path}: the API does not answer")
        time.sleep(0.1)


def state(type_: str) -> None:
    answer = call("POST", f"/flow_runs/{RUN}/set_state", {"state": {"type": type_}, "force": False})
    # A call whose answer was lost is made again, and then refused.
    if answer["status"] != "ACCEPT" and answer["state"]["type"] != type_:
        raise SystemExit(f"{type_}: {answer}")


run = call("GET", f"/flow_runs/{RUN}")
state("RUNNING")
call("POST", "/artifacts/", {"flow_run_id": RUN, "type": "start", "data": str(uuid.uuid4())})
lines, gate, limit = (run["parameters"].get(name) for name in ("lines", "gate", "limit"))
if limit is not None:
    asked = {"names": [limit], "slots": 1, "mode": "concurrency", "lease_duration": 60}
    lease = call("POST", "/v2/concurrency_limits/increment-with-lease", asked)
    entered = time.time()
for number in range(lines):
    # Half of them, until whoever has named a file has made it.
    while gate is not None and number == lines // 2 and not os.path.exists(gate):
        time.sleep(0.1)
    print(f"line {number}", flush=True)
    time.sleep(run["parameters"]["pause"])
if run["parameters"].get("breaks"):
    # Says nothing of its end.
    sys.exit(3)
if limit is not None:
    left = time.time()
    call("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease["lease_id"]})
    call("POST", "/artifacts/", {"flow_run_id": RUN, "type": "held", "data": f"{entered} {left}"})
state("COMPLETED")
sys.exit(0)
