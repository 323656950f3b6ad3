"""What the doctor makes of what a container saw."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.doctor.finding import Finding, Level
from managedd.doctor.judgement import runs
from managedd.doctor.judgement.firewall import Culprit
from managedd.drivers.docker_probe import NetworkFacts

URL = "http://172.18.0.1:4201/api"
TIMEOUT = {"outcome": "timeout"}
REFUSED = {"outcome": "refused"}
ANSWERED = {"outcome": "answered"}


def api(answer: dict[str, Any] | None, *, real: bool = True, blocked_by: Culprit | None = None) -> Finding:
    return runs.api(answer, url=URL, real=real, token="secret" if not real else "", blocked_by=blocked_by)


def test_the_daemons_own_answer_counts_as_reached() -> None:
    told = {**ANSWERED, "status": 401, "body": '{"exception_message":"Unauthorized"}'}
    assert api(told).level is Level.OK
    assert api({**told, "status": 503}).level is Level.OK
    assert api({**ANSWERED, "status": 401, "body": "<html>"}).level is Level.PROBLEM
    assert api({**ANSWERED, "status": 200, "body": "{}"}).level is Level.PROBLEM


def test_our_answer_in_its_place() -> None:
    assert api({**ANSWERED, "status": 200, "body": "secret"}, real=False).level is Level.OK
    assert api({**ANSWERED, "status": 200, "body": "other"}, real=False).level is Level.PROBLEM


def test_a_firewall_is_named_with_what_lets_runs_in() -> None:
    found = api(TIMEOUT, blocked_by=Culprit(name="ufw", seen="ufw is active", mend="ufw allow"))
    assert (found.level, found.mend, found.facts["blocked_by"]) == (Level.PROBLEM, "ufw allow", "ufw")
    assert "nothing came back; ufw is active" in found.seen


def test_other_reasons_for_silence() -> None:
    assert "runs.ca_bundle" in str(api({"outcome": "tls", "words": "self-signed"}).mend)
    assert "docker.dns" in str(api({"outcome": "unresolved", "words": "unknown"}).mend)
    assert "runs.api_url" in str(api(REFUSED).mend)
    assert api(None).level is Level.PROBLEM


def test_a_port_that_the_daemon_would_not_get() -> None:
    assert runs.port(4201, 4201) == []
    assert runs.port(0, 33333) == []
    assert runs.port(4201, 33333)[0].level is Level.WARNING


def addresses(answers: dict[str, Any], **changes: Any) -> dict[str, Level]:
    seen: dict[str, Any] = {"port": 4200, "guarded": False, "loopback": True, "listens": True}
    found = runs.addresses(answers, {"192.0.2.5": "eth0"}, **{**seen, **changes})
    return {finding.name: finding.level for finding in found}


CLIENTS = "clients' listener from a run"
HOST = "host from a run"


def test_which_addresses_a_run_reaches() -> None:
    assert addresses({"192.0.2.5": TIMEOUT}) == {HOST: Level.OK, CLIENTS: Level.OK}
    # A closed port answers too: the host was reached.
    assert addresses({"192.0.2.5": REFUSED}) == {HOST: Level.NOTE, CLIENTS: Level.OK}
    assert addresses({}) == {HOST: Level.OK, CLIENTS: Level.OK}


HOLDS = {"holds": True, "reason": "nftables", "mend": None}
MAY_NOT = {"holds": False, "reason": "the daemon may not", "mend": "let it"}


def test_why_a_run_reaches_the_host_and_what_mends_it() -> None:
    def first(came: dict[str, Any], **changes: Any) -> Finding:
        seen: dict[str, Any] = {"port": 4200, "guarded": True, "loopback": True, "listens": True, **changes}
        return runs.addresses({"192.0.2.5": came}, {"192.0.2.5": "eth0"}, **seen)[0]

    kept = first({"outcome": "unreachable"}, wall=HOLDS)
    assert (kept.level, kept.seen) == (Level.OK, "a run reaches none of 192.0.2.5 (nftables)")
    unheld = first(REFUSED, wall=MAY_NOT)
    assert (unheld.level, "the daemon may not" in unheld.seen) == (Level.WARNING, True)
    assert str(unheld.mend).startswith("let it; until then")
    assert first(ANSWERED, wall=HOLDS, opened=True).level is Level.NOTE
    refused = first(TIMEOUT, wall={**MAY_NOT, "refused": True})
    assert (refused.level, refused.seen) == (Level.PROBLEM, "the daemon may not")


def test_whether_a_run_reaches_a_machines_credentials() -> None:
    assert runs.metadata(TIMEOUT, wall=None).level is Level.OK
    assert runs.metadata({"outcome": "unreachable"}, wall=HOLDS).level is Level.OK
    reached = runs.metadata(ANSWERED, wall=MAY_NOT)
    assert (reached.level, str(reached.mend).startswith("let it; or iptables")) == (Level.WARNING, True)
    assert runs.metadata(REFUSED, wall=None).level is Level.WARNING


def test_whether_a_run_reaches_the_clients_listener() -> None:
    reached = {"192.0.2.5": ANSWERED}
    assert addresses(reached)[CLIENTS] is Level.PROBLEM
    assert addresses(reached, loopback=False)[CLIENTS] is Level.PROBLEM
    assert addresses(reached, loopback=False, guarded=True)[CLIENTS] is Level.NOTE
    [six, clients] = runs.addresses(
        {"2001:db8::5": ANSWERED}, {"2001:db8::5": "e"}, port=4200, guarded=True, loopback=False, listens=True
    )
    assert "2001:db8::5 (e)" in six.seen
    assert "[2001:db8::5]:4200" in clients.seen
    [_, unknown] = runs.addresses(reached, {"192.0.2.5": "e"}, port=1, guarded=True, loopback=False, listens=False)
    assert unknown.seen.startswith("not checked: ")


def test_runs_are_kept_apart() -> None:
    assert runs.neighbours(TIMEOUT, without=None).level is Level.OK
    open_ = runs.neighbours(ANSWERED, without=None)
    assert (open_.level, "br_netfilter" in str(open_.mend)) == (Level.PROBLEM, True)
    assert runs.neighbours(None, without="no other").seen == "not checked: no other"


def test_the_network() -> None:
    facts = {"id": "i", "name": "managedd-x", "bridge": "br-i", "subnet": "172.18.0.0/16", "gateway": "172.18.0.1"}
    assert runs.network(NetworkFacts(**facts, isolated=True), made=False).level is Level.OK
    assert runs.network(NetworkFacts(**facts, isolated=False), made=False).level is Level.PROBLEM


HELD: dict[str, int | None] = {
    "memory_bytes": 512,
    "swap_bytes": 0,
    "memory_and_swap_bytes": None,
    "pids": 64,
    "cpu_us_per_second": 1_000_000,
}


def limits(**changes: int | None) -> Finding:
    [found] = runs.limits({**HELD, **changes}, memory_bytes=512, pids=64, cpus=1.0)
    return found


def test_limits_that_are_held() -> None:
    assert limits().level is Level.OK
    assert limits(swap_bytes=None, memory_and_swap_bytes=512).level is Level.OK


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_bytes": None}, "memory is not limited"),
        ({"memory_bytes": 1024}, "memory is 1.0 KiB"),
        ({"swap_bytes": 512}, "swap"),
        ({"memory_and_swap_bytes": 1024}, "swap"),
        ({"pids": None}, "processes are not limited"),
        ({"cpu_us_per_second": None}, "processor time is not limited"),
        ({"cpu_us_per_second": 2_000_000}, "processor time is 2"),
    ],
)
def test_a_limit_that_is_not_held_is_named(changes: dict[str, int | None], words: str) -> None:
    found = limits(**changes)
    assert (found.level, words in found.seen) == (Level.WARNING, True), found.seen


def test_limits_that_cannot_be_seen() -> None:
    assert limits(**dict.fromkeys(HELD)).level is Level.NOTE


def test_what_is_in_the_image() -> None:
    assert runs.contents(python="3.12.1", prefect="3.8.8", image="i").level is Level.OK
    assert runs.contents(python="3.12.1", prefect=None, image="i").level is Level.PROBLEM
    assert runs.contents(python="3.12.1", prefect="2.20.0", image="i").level is Level.PROBLEM


def test_the_package_index() -> None:
    assert runs.package_index(ANSWERED, host="pypi.org").level is Level.OK
    assert "not known" in runs.package_index({"outcome": "unresolved"}, host="pypi.org").seen
