"""A lean start: what a daemon loads before it listens, and what is done once it does. In processes of their own: this one has loaded it all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from managedd.cli import serving
from managedd.cli.app import run

LATER = (
    "managedd.api.routes.",
    "rich.",
    "pygments.",
    "jsonschema.",
    "jinja2.",
    "croniter.",
    "dateutil.",
    "cyclopts.",
    "managedd.cli.app.",
)

LOADED = """
import json, sys
from managedd import cli, starting
assert cli.serving.plainly(["serve", "--port", "0"])
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
    gc.unfreeze()
    contexts = [found for found in gc.get_objects() if isinstance(found, ssl.SSLContext)]
    return {
        "collects": gc.isenabled(),
        "verified": [context.cert_store_stats() for context in contexts if context.verify_mode is ssl.CERT_REQUIRED],
        "unverified": [context.cert_store_stats() for context in contexts if context.verify_mode is ssl.CERT_NONE],
    }

starting.begin()
before = look()
starting.settle()
settled = look()
starting.trust()
print(json.dumps([before, settled, look(), ssl.create_default_context().cert_store_stats()]))
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


def test_garbage_is_collected_once_the_daemon_has_started_and_the_host_s_authorities_are_read_for_who_needs_them() -> (
    None
):
    before, settled, after, usual = said(SETTLED)
    none = {"x509": 0, "crl": 0, "x509_ca": 0}
    assert before == {"collects": False, "verified": [none], "unverified": [none]}
    assert settled == {"collects": True, "verified": [none], "unverified": [none]}
    assert after == {"collects": True, "verified": [usual], "unverified": [usual]}


def test_two_who_ask_for_the_authorities_at_once_both_have_them() -> None:
    assert said(ASKED_BY_TWO) == [2, []]


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        [],
        ["serve", "--help"],
        ["serve", "--port"],
        ["serve", "--port", "many"],
        ["serve", "--port", "-1"],
        ["serve", "--port="],
        ["serve", "--port", "1", "--port", "2"],
        ["serve", "--driver", "podman"],
        ["serve", "--prot", "1"],
        ["serve", "--data-dir", "--port"],
        ["serve", "here"],
    ],
)
def test_what_is_not_said_in_the_plainest_way_is_left_to_the_command_line(arguments: list[str]) -> None:
    assert serving.plainly(arguments) is None


def test_what_is_said_plainly_means_what_the_command_line_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[Path | None, dict[str, Any]]] = []
    monkeypatch.setattr(serving, "serve", lambda config, flags: served.append((config, dict(flags))))
    for arguments in (
        ["serve"],
        ["serve", "--config", "a.toml", "--data-dir=/b", "--host", "::1", "--port=8080", "--driver", "process"],
    ):
        plain = serving.plainly(arguments)
        assert plain is not None
        plain()
        assert run(arguments) == 0
    bare, bare_again, whole, whole_again = served
    assert (bare[0], whole[0]) == (None, Path("a.toml"))
    for (config, flags), (config_again, flags_again) in ((bare, bare_again), (whole, whole_again)):
        assert config == config_again
        assert flags == {key: str(value) if isinstance(value, Path) else value for key, value in flags_again.items() if value is not None}  # fmt: skip
