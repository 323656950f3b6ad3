"""Which firewall keeps runs from the daemon: the host's rules, followed as the kernel would follow them."""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_DROPS = frozenset({"DROP", "REJECT"})
_GOES_ON = frozenset({"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TRACE", "AUDIT", "SET", "NFQUEUE", "CT", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """A run's first packet to the listener: what a rule may look at."""

    bridge: str
    subnet: str
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewalls:
    """What could be learned of this host's firewalls; None: not installed, or not to be seen."""

    ufw: bool | None = None
    firewalld: bool | None = None
    zone: str | None = None
    """firewalld's zone of the runs' bridge."""
    rules: tuple[str, ...] = ()
    """As `iptables -S` prints them; hosts with both of its kinds have two."""
    nft: Mapping[str, Any] | None = None
    """As `nft -j list ruleset` prints it."""
    may_look: bool = True
    """Only root sees rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """Who keeps runs out, and what lets them in."""

    name: str | None
    """ufw, firewalld, iptables or nftables; None: nobody was found."""
    seen: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    target: str
    chain: str
    rule: str
    sure: bool = True

    @property
    def drops(self) -> bool:
        return self.target in _DROPS


@dataclass(slots=True)
class _Rules:
    policies: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[list[str]]] = field(default_factory=dict)


def culprit(firewalls: Firewalls, knock: Knock) -> Culprit:
    """Who drops the packet; to be asked when it did not arrive."""
    verdicts = [verdict for rules in firewalls.rules if (verdict := follow(rules, knock)) is not None and verdict.drops]
    if verdicts:
        # A rule that drops for certain explains more than one that may.
        verdict = next((each for each in verdicts if each.sure), verdicts[0])
        owner = _owner(verdict.chain, firewalls)
        likely = "" if verdict.sure else ", which may be the one,"
        return Culprit(
            name=owner,
            seen=f"{owner} keeps runs out: {verdict.rule}{likely} in chain {verdict.chain}",
            mend=_mend(owner, firewalls, knock),
        )
    if firewalls.firewalld:
        return Culprit(
            name="firewalld",
            seen=f"firewalld is running and has the runs' bridge {knock.bridge} in "
            + (f"zone {firewalls.zone}" if firewalls.zone else "no zone of its own"),
            mend=_mend("firewalld", firewalls, knock),
        )
    if dropping := list(_dropping_chains(firewalls.nft)):
        family, table, chain, why = dropping[0]
        return Culprit(
            name="nftables",
            seen=f"nftables has {why} in chain {chain} of table {family} {table}",
            mend=f"nft insert rule {family} {table} {chain} ip saddr {knock.subnet} tcp dport {knock.port} accept, and the same where "
            "your rules are kept",
        )
    if firewalls.ufw:
        return Culprit(name="ufw", seen="ufw is active", mend=_mend("ufw", firewalls, knock))
    if not firewalls.may_look:
        return Culprit(
            name=None,
            seen="only root can see the firewall's rules",
            mend=f"run the doctor as root (sudo managedd doctor), or let {knock.subnet} in to port {knock.port} yourself",
        )
    return Culprit(
        name=None,
        seen="no rule of this host's firewall was found that would explain it",
        mend=f"see what lies between: from {knock.subnet} to {knock.address} port {knock.port} (tcpdump -ni {knock.bridge} port {knock.port})",
    )


def _owner(chain: str, firewalls: Firewalls) -> str:
    if chain.lower().startswith("ufw") or (firewalls.ufw and chain == "INPUT"):
        return "ufw"
    if chain.startswith(("IN_", "INPUT_")) or (firewalls.firewalld and chain == "INPUT"):
        return "firewalld"
    return "iptables"


def _mend(owner: str, firewalls: Firewalls, knock: Knock) -> str:
    if owner == "ufw":
        return f"ufw allow proto tcp from {knock.subnet} to any port {knock.port} comment 'runs of managedd'"
    if owner == "firewalld":
        zone = f" --zone={firewalls.zone}" if firewalls.zone else ""
        return (
            f"firewall-cmd --permanent{zone} --add-rich-rule='rule family=ipv4 source address={knock.subnet} port port={knock.port} "
            "protocol=tcp accept', then firewall-cmd --reload"
        )
    return f"iptables -I INPUT -i {knock.bridge} -p tcp --dport {knock.port} -j ACCEPT, and the same where your rules are kept"


# --- iptables ----------------------------------------------------------------------------------------------------------


def follow(rules: str, knock: Knock) -> _Verdict | None:
    """What becomes of the packet in the chain INPUT; None: nothing is said of it. A rule that can't be judged counts only if it drops."""
    parsed = _parsed(rules)
    maybe: list[_Verdict] = []
    verdict = _walk(parsed, "INPUT", knock, maybe, depth=0)
    if verdict is None:
        policy = parsed.policies.get("INPUT")
        verdict = None if policy is None else _Verdict(target=policy, chain="INPUT", rule=f"the policy {policy}")
    if maybe and (verdict is None or not verdict.drops):
        return maybe[0]
    return verdict


def _parsed(text: str) -> _Rules:
    rules = _Rules()
    for line in text.splitlines():
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        if len(words) >= 3 and words[0] == "-P":
            rules.policies[words[1]] = words[2]
        elif len(words) >= 2 and words[0] == "-A":
            rules.chains.setdefault(words[1], []).append(words[2:])
    return rules


def _walk(rules: _Rules, chain: str, knock: Knock, maybe: list[_Verdict], *, depth: int) -> _Verdict | None:
    if depth > 20:
        return None
    for words in rules.chains.get(chain, ()):
        matches, target = _matches(words, knock)
        if matches is False or target in _GOES_ON:
            continue
        if target == "RETURN":
            if matches:
                return None
            continue
        if target in {"ACCEPT", *_DROPS}:
            found = _Verdict(target=target, chain=chain, rule=shlex.join(words), sure=bool(matches))
        else:
            inner = _walk(rules, target, knock, maybe, depth=depth + 1)
            if inner is None:
                continue
            found = inner
        if matches:
            return found
        if found.drops:
            maybe.append(_Verdict(target=found.target, chain=found.chain, rule=found.rule, sure=False))
    return None


def _matches(words: Sequence[str], knock: Knock) -> tuple[bool | None, str]:
    """Whether the rule takes the packet (None: who knows), and its target."""
    answers: list[bool | None] = []
    target, at = "", 0
    while at < len(words):
        negated = words[at] == "!"
        word, at = words[at + negated], at + negated + 1
        if word in {"-j", "-g"}:
            # What follows belongs to the target: --reject-with, --log-prefix.
            target = words[at]
            break
        begin = at
        # A comment may look like anything; of the rest no value begins with a dash.
        while at < len(words) and (at == begin if word == "--comment" else words[at] != "!" and words[at][:1] != "-"):
            at += 1
        if word in {"-m", "--comment"}:
            continue
        answer = _match(word, words[begin] if at > begin else "", knock)
        answers.append(answer if answer is None else answer != negated)
    if False in answers:
        return False, target
    return (None if None in answers else True), target


def _match(word: str, value: str, knock: Knock) -> bool | None:
    match word:
        case "-i":
            return knock.bridge.startswith(value[:-1]) if value.endswith("+") else knock.bridge == value
        case "-s":
            return _within(knock.subnet, value)
        case "-d":
            return _within(knock.address, value)
        case "-p":
            return value in {"tcp", "all", "6"}
        case "--dport" | "--dports":
            return any(_in_range(knock.port, part) for part in value.split(","))
        case "--ctstate" | "--state":
            return "NEW" in value.split(",")
        case "--dst-type":
            return value == "LOCAL"
        case "--icmp-type":
            return False
    return None


def _within(inner: str, outer: str) -> bool | None:
    try:
        here, there = ipaddress.ip_network(inner, strict=False), ipaddress.ip_network(outer, strict=False)
    except ValueError:
        return None
    if here.version != there.version or not here.overlaps(there):
        return False
    # A rule about a part of the subnet may mean the run or not.
    return True if here.prefixlen >= there.prefixlen else None


def _in_range(port: int, words: str) -> bool:
    first, colon, last = words.partition(":")
    low = int(first) if first.isdecimal() else 0
    high = (int(last) if last.isdecimal() else 65535) if colon else low
    return low <= port <= high


# --- nftables ----------------------------------------------------------------------------------------------------------


def _dropping_chains(ruleset: Mapping[str, Any] | None) -> Iterator[tuple[str, str, str, str]]:
    """Chains at the hook `input` that let something fall: family, table, chain, what."""
    entries = (ruleset or {}).get("nftables") or []
    hooked = {}
    for entry in entries:
        chain = entry.get("chain")
        if chain and chain.get("hook") == "input" and chain.get("type", "filter") == "filter":
            hooked[(chain["family"], chain["table"], chain["name"])] = chain
            if chain.get("policy") == "drop":
                yield chain["family"], chain["table"], chain["name"], "the policy drop"
    for entry in entries:
        rule = entry.get("rule")
        if not rule:
            continue
        place = (rule["family"], rule["table"], rule["chain"])
        if place in hooked and any("drop" in each or "reject" in each for each in rule.get("expr") or []):
            yield (*place, "a rule that drops")
