"""What a container on the runs' network saw: whether runs will reach the API, and what else they reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.doctor.finding import Finding, not_checked, note, ok, problem, warning
from managedd.doctor.words import processors, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.doctor.judgement.firewall import Culprit
    from managedd.drivers.docker_probe import NetworkFacts

API = "API from a run"
_BY_HAND = "let programs that are not for runs listen on 127.0.0.1, or have the firewall turn the runs' subnet away from their ports"
_OUTCOMES = {
    "refused": "the connection was refused",
    "timeout": "nothing came back",
    "unreachable": "there is no way there",
    "unresolved": "the name is not known",
    "tls": "its certificate is not trusted",
}


def outcome(answer: Mapping[str, Any] | None) -> str:
    """What became of an attempt, in words."""
    if answer is None:
        return "nothing was heard of it"
    told = _OUTCOMES.get(str(answer.get("outcome")), str(answer.get("outcome")))
    words = answer.get("words")
    return f"{told} ({words})" if words and answer["outcome"] not in {"refused", "timeout"} else told


def started(*, seconds: float) -> Finding:
    """A container was started and has looked around."""
    return ok(
        "container",
        f"one of the runs' image started and looked around within {seconds:.1f} s",
        seconds=round(seconds, 3),
    )


def network(facts: NetworkFacts, *, made: bool) -> Finding:
    """The network that runs are on."""
    name = "runs' network"
    told = {
        "network": facts.name,
        "subnet": facts.subnet,
        "gateway": facts.gateway,
        "bridge": facts.bridge,
        "made": made,
    }
    if not facts.isolated:
        return problem(
            name,
            f"{facts.name} lets containers reach each other: somebody made it anew with other options",
            f"when nothing runs: docker network rm {facts.name}, then systemctl restart managedd makes it as it should be",
            **told,
        )
    shown = f"subnet {facts.subnet}, gateway {facts.gateway}"
    if made:
        return ok(name, f"the daemon has none yet; one like it was made for this ({shown})", **told)
    return ok(name, f"{facts.name}, {shown}", **told)


def api(
    answer: Mapping[str, Any] | None, *, url: str, real: bool, token: str, blocked_by: Culprit | None, name: str = API
) -> Finding:
    """Whether a run reaches the API; 401 without a key is how the daemon's listener answers."""
    facts = {
        "url": url,
        "daemon_listens": real,
        "outcome": (answer or {}).get("outcome"),
        "blocked_by": blocked_by and blocked_by.name,
    }
    if answer is not None and answer.get("outcome") == "answered":
        return _answered(answer, facts, url=url, real=real, token=token, name=name)
    seen = f"a run can't reach the API at {url}: {outcome(answer)}"
    if answer is not None and answer.get("outcome") == "tls":
        return problem(
            name,
            seen,
            "put the authority's certificate into runs.ca_bundle, or mend the certificate behind runs.api_url",
            **facts,
        )
    if answer is not None and answer.get("outcome") == "unresolved":
        return problem(
            name, seen, "use an address in runs.api_url, or a name server in docker.dns that knows the name", **facts
        )
    if blocked_by is None:
        return problem(
            name,
            seen,
            "see runs.api_url and runs.listen_host: this address has to lead here from inside a container",
            **facts,
        )
    return problem(name, f"{seen}; {blocked_by.seen}", blocked_by.mend, **facts)


def _answered(
    answer: Mapping[str, Any], facts: dict[str, Any], *, url: str, real: bool, token: str, name: str
) -> Finding:
    status, body = answer.get("status"), str(answer.get("body") or "")
    if real:
        # What a run without a key gets; 503 while it starts or stops.
        if status in {401, 503} and "exception_message" in body:
            return ok(name, f"the daemon is reached at {url}", **facts)
        theirs = f"something answers at {url} with status {status}, and it is not the daemon's listener for runs"
    else:
        if token in body:
            return ok(name, f"{url} is reached, where the daemon would listen", **facts)
        theirs = f"something else answers at {url} (status {status})"
    return problem(
        name,
        theirs,
        "find out what listens there (ss -ltnp), or what stands between: runs.api_url has to lead to this daemon",
        **facts,
    )


def port(wanted: int, used: int) -> list[Finding]:
    """Whether the port that runs hold could be had; the daemon takes a free one in its place."""
    name = "runs' port"
    if wanted in {0, used}:
        return []
    return [
        warning(
            name,
            f"port {wanted} is taken; the daemon would use another one, and a firewall that lets in only {wanted} would cut runs off",
            "ss -ltnp shows who has it; stop that, or set another runs.listen_port",
            wanted=wanted,
        )
    ]


def addresses(
    answers: Mapping[str, Mapping[str, Any]],
    interfaces: Mapping[str, str],
    *,
    port: int,
    guarded: bool,
    loopback: bool,
    listens: bool,
    wall: Mapping[str, Any] | None = None,
    opened: bool = False,
) -> list[Finding]:
    """Which of the host's addresses a run reaches, and whether it reaches the clients' listener there."""
    reached, open_at = [], []
    for address, interface in interfaces.items():
        came = answers.get(address, {}).get("outcome")
        if came in {"answered", "refused"}:
            reached.append(f"{address} ({interface})")
        if came == "answered":
            open_at.append(address)
    name = "host from a run"
    facts = {
        "addresses": {address: answers.get(address, {}).get("outcome") for address in interfaces},
        "wall": None if wall is None else wall["holds"],
    }
    if wall is not None and wall.get("refused"):
        first = problem(name, str(wall["reason"]), "mend that, or take the demand out", **facts)
    elif reached:
        first = _reached(name, ", ".join(reached), wall, facts, opened=opened)
    else:
        because = f" ({wall['reason']})" if wall is not None and wall["holds"] else ""
        seen = f"a run reaches none of {', '.join(interfaces)}" if interfaces else "no address but the gateway"
        first = ok(name, seen + because, **facts)
    return [first, _clients(open_at, port=port, guarded=guarded, loopback=loopback, listens=listens)]


def _reached(
    name: str, reached: str, wall: Mapping[str, Any] | None, facts: dict[str, Any], *, opened: bool
) -> Finding:
    seen = f"a run reaches {reached}: whatever listens there on all addresses"
    if opened:
        return note(
            name, f"{seen}; docker.host_allow lets it", "name ports in docker.host_allow in place of *", **facts
        )
    if wall is not None and not wall["holds"]:
        return warning(name, f"{seen}; {wall['reason']}", f"{wall['mend']}; until then {_BY_HAND}", **facts)
    return note(name, seen, _BY_HAND, **facts)


def metadata(answer: Mapping[str, Any] | None, *, wall: Mapping[str, Any] | None) -> Finding:
    """Whether a run could ask a cloud for this machine's credentials."""
    name = "metadata from a run"
    came = (answer or {}).get("outcome")
    if came not in {"answered", "refused"}:
        return ok(name, f"a run does not reach 169.254.169.254: {outcome(answer)}", outcome=came)
    by_hand = "iptables -I DOCKER-USER -d 169.254.0.0/16 -j REJECT, and the same where your rules are kept"
    mend = by_hand if wall is None or wall["holds"] or not wall.get("mend") else f"{wall['mend']}; or {by_hand}"
    return warning(
        name, "a run reaches 169.254.169.254, where clouds tell a machine its credentials", mend, outcome=came
    )


def _clients(open_at: list[str], *, port: int, guarded: bool, loopback: bool, listens: bool) -> Finding:
    name = "clients' listener from a run"
    if not listens:
        return not_checked(name, "no daemon listens there now")
    facts: dict[str, Any] = {"reached_at": open_at, "needs_credential": guarded}
    if not open_at:
        where = "it is on a loopback address, and no run reaches it" if loopback else f"no run reaches port {port}"
        return ok(name, where, **facts)
    shown = ", ".join(f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in open_at)
    if loopback:
        return problem(
            name,
            f"it is on a loopback address, and yet a run reaches {shown}",
            'something forwards that port (ss -ltnp, iptables -t nat -S): whoever is behind it may do everything; set auth.mode = "key"',
            **facts,
        )
    if not guarded:
        return problem(
            name, f"a run reaches it at {shown}, and it asks for no credential", 'set auth.mode = "key"', **facts
        )
    return note(name, f"a run reaches it at {shown}; it asks for a credential there", **facts)


def neighbours(answer: Mapping[str, Any] | None, *, without: str | None) -> Finding:
    """Whether runs are really kept apart: one container tried another that was listening."""
    name = "between runs"
    if without is not None:
        return not_checked(name, without)
    came = (answer or {}).get("outcome")
    if came == "answered":
        return problem(
            name,
            "one container reaches another on the runs' network, although the engine was told to keep them apart",
            "load br_netfilter and set net.bridge.bridge-nf-call-iptables=1 (and keep both over restarts), and let the engine manage iptables "
            '("iptables": true in /etc/docker/daemon.json)',
            outcome=came,
        )
    return ok(name, f"one container does not reach another: {outcome(answer)}", outcome=came)


def limits(seen: Mapping[str, int | None], *, memory_bytes: int, pids: int, cpus: float) -> list[Finding]:
    """Whether the limits that a run is given are those of its control group."""
    name = "limits in a run"
    told = {key: value for key, value in seen.items() if value is not None}
    if not told:
        return [
            note(
                name, "the container does not see its own control group, so its limits can't be compared", facts_seen={}
            )
        ]
    wrong = []
    if told.get("memory_bytes") != memory_bytes:
        wrong.append(
            f"memory is {size(told['memory_bytes']) if 'memory_bytes' in told else 'not limited'}, not {size(memory_bytes)}"
        )
    both = told.get("memory_and_swap_bytes")
    if told.get("swap_bytes", 0) > 0 or (both is not None and both > memory_bytes):
        wrong.append("swap comes on top of the memory limit")
    if told.get("pids") != pids:
        wrong.append(f"processes are {told.get('pids', 'not limited')}, not {pids}")
    asked_us = round(cpus * 1_000_000)
    if abs(told.get("cpu_us_per_second", 0) - asked_us) > asked_us // 100:
        wrong.append(
            f"processor time is {told['cpu_us_per_second'] / 1e6:g}, not {cpus:g}"
            if "cpu_us_per_second" in told
            else "processor time is not limited"
        )
    if wrong:
        return [
            warning(
                name,
                "a container was given a run's limits and does not have them: " + "; ".join(wrong),
                "see the findings about control groups; the engine and its runtime have to hold them",
                limits=dict(seen),
            )
        ]
    return [
        ok(
            name,
            f"a container has {size(memory_bytes)} of memory, {processors(cpus)} and {pids} processes, as it was given",
            limits=dict(seen),
        )
    ]


def contents(*, python: str, prefect: str | None, image: str) -> Finding:
    """Whether the image can run flows at all."""
    name = "inside the image"
    facts = {"python": python, "prefect": prefect}
    if prefect is None:
        return problem(
            name,
            f"{image} has Python {python} and no prefect that it finds",
            "use an image with prefect in the Python that python3 starts, for example prefecthq/prefect:3-latest",
            **facts,
        )
    if not prefect.startswith("3."):
        return problem(name, f"{image} has prefect {prefect}", "use an image with prefect 3", **facts)
    return ok(name, f"Python {python}, prefect {prefect}", **facts)


def package_index(answer: Mapping[str, Any] | None, *, host: str) -> Finding:
    """Whether runs with `pip_packages` will find them."""
    name = "package index from a run"
    facts = {"host": host, "outcome": (answer or {}).get("outcome")}
    if (answer or {}).get("outcome") == "answered":
        return ok(name, f"a container reaches {host}", **facts)
    return warning(
        name,
        f"a container can't reach {host}: {outcome(answer)}; runs with pip_packages will fail",
        "see the host's forwarding and its name server (docker.dns); runs.http_proxy for a proxy, runs.index_url for an index of your own",
        **facts,
    )
