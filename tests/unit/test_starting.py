"""A lean start: what a daemon loads before it listens, and what is done once it does. In processes of their own: this one has loaded it all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

LATER = (
    "managedd.api.routes.",
    "rich.",
    "pygments.",
    "jsonschema.",
    "jinja2.",
    "croniter.",
    "dateutil.",
    "cyclopts.help.",
)

LOADED = """
import json, sys
from managedd import cli, starting
starting.begin()
from managedd import daemon
print(json.dumps(list(sys.modules)))
"""

RIGHTS = """
import json, subprocess
from managedd import starting
from managedd.drivers import firewall, nftables
from managedd.drivers.firewall import Wall

def rights(status):
    return {name: int(value, 16) for name, _, value in (line.partition(":") for line in status.splitlines()) if name in ("CapEff", "CapAmb")}

before = rights(open("/proc/self/status").read())
starting.begin()
child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
stands = firewall.put_up("managedd-a", Wall(bridge="br-none", ways=()))
print(json.dumps([before, rights(open("/proc/self/status").read()), rights(child.stdout), stands]))
"""
NET_ADMIN = 1 << 12

SETTLED = """
import gc, json, ssl
from managedd import starting

def look():
    contexts = [found for found in gc.get_objects() if isinstance(found, ssl.SSLContext)]
    return {
        "collects": gc.isenabled(),
        "verified": [context.cert_store_stats() for context in contexts if context.verify_mode is ssl.CERT_REQUIRED],
        "unverified": [context.cert_store_stats() for context in contexts if context.verify_mode is ssl.CERT_NONE],
    }

starting.begin()
before = look()
starting.settle()
gc.unfreeze()
print(json.dumps([before, look(), ssl.create_default_context().cert_store_stats()]))
"""

ASKED_BY_TWO = """
import json, threading
from managedd import starting

starting.begin()
contexts, both, failed = list(starting._waiting), threading.Barrier(2), []

def ask():
    both.wait()
    try:
        starting.trust()
        assert all(context.cert_store_stats()["x509_ca"] for context in contexts)
    except BaseException as error:
        failed.append(repr(error))

threads = [threading.Thread(target=ask) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([len(contexts), failed]))
"""


def said(program: str) -> Any:
    """What a new interpreter prints that runs `program`."""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)
    return json.loads(done.stdout)


def test_a_right_that_the_unit_gives_is_the_daemons_and_no_childs() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can start it with such a right")
    given = (
        "--reuid",
        "65534",
        "--clear-groups",
        "--inh-caps=+net_admin",
        "--ambient-caps=+net_admin",
        "--bounding-set=-all,+net_admin",
    )
    # A network of its own: no daemon's rules are there.
    command = ["unshare", "--net", "setpriv", *given, "--no-new-privs", sys.executable, "-c", RIGHTS]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after, child, stands = json.loads(done.stdout)
    assert before == {"CapEff": NET_ADMIN, "CapAmb": NET_ADMIN}
    assert after == {"CapEff": NET_ADMIN, "CapAmb": 0}
    assert child == {"CapEff": 0, "CapAmb": 0}
    assert stands


def test_a_daemon_that_starts_loads_nothing_that_it_needs_later_or_never() -> None:
    loaded = said(LOADED)
    assert "managedd.daemon" in loaded
    assert [name for name in loaded if f"{name}.".startswith(LATER) and name != "managedd.api.routes"] == []


def test_the_host_s_authorities_are_read_and_garbage_is_collected_once_the_daemon_has_started() -> None:
    before, after, usual = said(SETTLED)
    none = {"x509": 0, "crl": 0, "x509_ca": 0}
    assert before == {"collects": False, "verified": [none], "unverified": [none]}
    assert after == {"collects": True, "verified": [usual], "unverified": [usual]}


def test_two_who_ask_for_the_authorities_at_once_both_have_them() -> None:
    assert said(ASKED_BY_TWO) == [2, []]
