#!/usr/bin/python3 -ES
"""A stand-in for the engine inside a run that gets into trouble: takes memory in a child that left, never ends, ends before that child, says
nothing, hears nothing, fills the disk or forks without end."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
import urllib.request

API = os.environ["PREFECT_API_URL"]
RUN = os.environ["PREFECT__FLOW_RUN_ID"]
KEY = base64.b64encode(os.environ["PREFECT_API_AUTH_STRING"].encode()).decode()


def call(method: str, path: str, body: object = None) -> object:
    headers = {"Authorization": f"Basic {KEY}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(API + path, method=method, headers=headers, data=data), timeout=10
    ) as answer:
        return json.loads(answer.read() or b"null")


def leave() -> bool:
    """True in a grandchild with a session of its own, whose parent is gone."""
    if os.fork() > 0:
        return False
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    return True


def fork_without_end() -> None:
    """As many children as there may be, and again when some of them have gone."""
    while True:
        try:
            if os.fork() == 0:
                time.sleep(300)
        except OSError:
            time.sleep(0.1)


wanted = call("GET", f"/flow_runs/{RUN}")["parameters"]
if wanted.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if wanted.get("silent"):
    time.sleep(300)
call("POST", f"/flow_runs/{RUN}/set_state", {"state": {"type": "RUNNING"}, "force": False})
print("running", flush=True)
if wanted.get("fills"):
    with open("filler", "wb") as file:
        while file.write(os.urandom(1 << 20)):
            time.sleep(0.01)
if wanted.get("forks"):
    fork_without_end()
reading, writing = os.pipe()
if leave():
    if wanted.get("eats"):
        kept = [bytearray(1 << 22) for _ in range(256)]
    time.sleep(300)
os.close(writing)
if (gate := wanted.get("gate")) is not None:
    while not os.path.exists(gate):
        time.sleep(0.02)
    if wanted["code"] == 0:
        call("POST", f"/flow_runs/{RUN}/set_state", {"state": {"type": "COMPLETED"}, "force": False})
    raise SystemExit(wanted["code"])
os.read(reading, 1)
# The child is dead: with the whole family, or alone, as the kernel has it.
raise SystemExit(1)
