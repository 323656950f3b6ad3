"""The daemon's own log tells where something failed, and no value that was at hand there."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAILS = """
import sys
from managedd import observe

def opens(data):
    secret = data["value"]
    raise RuntimeError("it failed")

observe.configure("info", sys.argv[1])
try:
    opens({"value": "hush-" + "of-a-block"})
except RuntimeError:
    observe.get_log("test").exception("loop.failed", loop="x")
"""


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_shows_no_values(style: str) -> None:
    done = subprocess.run([sys.executable, "-c", FAILS, style], capture_output=True, text=True, check=True, timeout=60)
    assert "it failed" in done.stderr and "in opens" in done.stderr
    assert "hush-of-a-block" not in done.stderr
