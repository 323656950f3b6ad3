#!/usr/bin/python3 -ES
"""A stand-in for the engine inside a run: once its run has the tag `go`, it prints numbered lines with the moment of printing.

Parameters of the run: `rate`, lines a second, 0 for as fast as can be, below it for computing without printing; `seconds`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.request
from typing import Any

API = os.environ["PREFECT_API_URL"]
RUN = os.environ["PREFECT__FLOW_RUN_ID"]
AUTH = os.environ.get("PREFECT_API_AUTH_STRING")
CREDENTIAL = f"Basic {base64.b64encode(AUTH.encode()).decode()}" if AUTH else f"Bearer {os.environ['PREFECT_API_KEY']}"


def call(method: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        API + path,
        method=method,
        headers={"Authorization": CREDENTIAL, "Content-Type": "application/json"},
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def state(type_: str) -> None:
    call("POST", f"/flow_runs/{RUN}/set_state", {"state": {"type": type_}, "force": False})


run = call("GET", f"/flow_runs/{RUN}")
rate, seconds = run["parameters"]["rate"], run["parameters"]["seconds"]
state("RUNNING")
while "go" not in run["tags"]:
    time.sleep(0.2)
    run = call("GET", f"/flow_runs/{RUN}")
began = time.monotonic()
number = 0
while time.monotonic() - began < seconds:
    if rate < 0:
        continue
    if rate:
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        print(number, time.time_ns(), flush=True)
    else:
        print(number, time.time_ns(), "what a flow prints that prints whatever it has in a loop without end")
    number += 1
print("printed", number, flush=True)
state("COMPLETED")
sys.exit(0)
