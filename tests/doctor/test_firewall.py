"""Which firewall keeps runs out: rules as the host prints them, followed without a kernel."""

from __future__ import annotations

import pytest

from managedd.doctor.judgement.firewall import Firewalls, Knock, culprit, follow

KNOCK = Knock(bridge="br-0123456789ab", subnet="172.18.0.0/16", address="172.18.0.1", port=4201)
UFW = """\
-P INPUT DROP
-P FORWARD DROP
-N ufw-before-input
-N ufw-after-input
-N ufw-user-input
-N ufw-skip-to-policy-input
-N ufw-reject-input
-A INPUT -j ufw-before-logging-input
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -m comment --comment "from anywhere, 'as ever'" -j ACCEPT
"""


def dropped_by(rules: str) -> str | None:
    verdict = follow(rules, KNOCK)
    return verdict.chain if verdict is not None and verdict.drops else None


@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        ("-j DROP", True),
        ("-i br-0123456789ab -p tcp -m tcp --dport 4201 -j REJECT --reject-with icmp-port-unreachable", True),
        ("-i br-+ -j DROP", True),
        ("-i eth0 -j DROP", False),
        ("! -i eth0 -j DROP", True),
        ("-s 172.16.0.0/12 -j DROP", True),
        ("-s 192.0.2.0/24 -j DROP", False),
        ("-d 172.18.0.1/32 -p tcp -j DROP", True),
        ("-p udp -j DROP", False),
        ("-p tcp -m multiport --dports 22,4200:4300 -j DROP", True),
        ("-p tcp -m tcp --dport 4202 -j DROP", False),
        ("-m conntrack --ctstate INVALID -j DROP", False),
        ("-m state --state NEW -j DROP", True),
        ("-m addrtype --dst-type LOCAL -j DROP", True),
        ("-m comment --comment 'drop it, -j ACCEPT' -j DROP", True),
        ("-j LOG --log-prefix '-j DROP'", False),
        ("-j NOBODY", False),
    ],
)
def test_one_rule(rule: str, drops: bool) -> None:
    assert dropped_by(f"-P INPUT ACCEPT\n-A INPUT {rule}\n") == ("INPUT" if drops else None)


def test_the_first_rule_that_takes_the_packet_decides() -> None:
    assert dropped_by("-P INPUT DROP\n-A INPUT -p tcp --dport 4201 -j ACCEPT\n-A INPUT -j DROP") is None
    assert dropped_by("-P INPUT ACCEPT\n-A INPUT -j MINE\n-A MINE -s 172.18.0.0/16 -j RETURN\n-A MINE -j DROP") is None
    assert dropped_by("-P INPUT ACCEPT\n-A INPUT -j MINE\n-A MINE -j DROP") == "MINE"
    assert dropped_by("-P INPUT DROP") == "INPUT"


def test_a_rule_that_cannot_be_judged_is_only_suspected() -> None:
    verdict = follow("-P INPUT ACCEPT\n-A INPUT -m set --match-set bad src -j DROP", KNOCK)
    assert verdict is not None
    assert (verdict.drops, verdict.sure) == (True, False)
    # It may let the packet in or not: then what comes after counts.
    assert dropped_by("-P INPUT DROP\n-A INPUT -m set --match-set good src -j ACCEPT") == "INPUT"


def test_chains_that_call_themselves_end() -> None:
    assert dropped_by("-P INPUT ACCEPT\n-A INPUT -j A\n-A A -j A") is None


def test_ufw_is_named() -> None:
    found = culprit(Firewalls(ufw=True, rules=(UFW,)), KNOCK)
    assert found.name == "ufw"
    assert found.mend == "ufw allow proto tcp from 172.18.0.0/16 to any port 4201 comment 'runs of managedd'"
    through = UFW + "-A ufw-user-input -s 172.18.0.0/16 -p tcp -m tcp --dport 4201 -j ACCEPT\n"
    assert follow(through, KNOCK) is not None
    assert dropped_by(through) is None


def test_ufw_is_named_without_a_look_at_its_rules() -> None:
    assert culprit(Firewalls(ufw=True, may_look=False), KNOCK).name == "ufw"


def test_firewalld_is_named_with_its_zone() -> None:
    found = culprit(Firewalls(firewalld=True, zone="public"), KNOCK)
    assert (found.name, "--zone=public" in found.mend, "source address=172.18.0.0/16" in found.mend) == (
        "firewalld",
        True,
        True,
    )
    legacy = "-P INPUT ACCEPT\n-A INPUT -j INPUT_ZONES\n-A INPUT -j REJECT --reject-with icmp-host-prohibited"
    assert culprit(Firewalls(firewalld=True, rules=(legacy,)), KNOCK).name == "firewalld"


def test_a_plain_rule_is_shown() -> None:
    found = culprit(Firewalls(rules=("-P INPUT ACCEPT\n-A INPUT -p tcp --dport 4201 -j DROP",)), KNOCK)
    assert (found.name, "--dport 4201 -j DROP" in found.seen) == ("iptables", True)
    assert "iptables -I INPUT -i br-0123456789ab -p tcp --dport 4201 -j ACCEPT" in found.mend


def test_the_sure_rule_of_two_sets_is_shown() -> None:
    maybe, sure = (
        "-P INPUT ACCEPT\n-A INPUT -m set --match-set bad src -j DROP",
        "-P INPUT ACCEPT\n-A INPUT -i br-+ -j DROP",
    )
    assert "br-+" in culprit(Firewalls(rules=(maybe, sure)), KNOCK).seen


def test_nftables_is_named() -> None:
    chain = {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input"}
    policy = {"nftables": [{"chain": {**chain, "policy": "drop"}}]}
    rule = {
        "nftables": [
            {"chain": {**chain, "policy": "accept"}},
            {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"reject": None}]}},
        ]
    }
    for ruleset in (policy, rule):
        found = culprit(Firewalls(nft=ruleset), KNOCK)
        assert found.name == "nftables"
        assert "nft insert rule inet filter input ip saddr 172.18.0.0/16 tcp dport 4201 accept" in found.mend
    open_ = {
        "nftables": [
            {"chain": {**chain, "policy": "accept"}},
            {"chain": {**chain, "hook": "forward", "policy": "drop"}},
        ]
    }
    assert culprit(Firewalls(nft=open_), KNOCK).name is None


def test_nobody_is_accused_without_a_reason() -> None:
    assert culprit(Firewalls(rules=("-P INPUT ACCEPT",)), KNOCK).name is None
    blind = culprit(Firewalls(may_look=False), KNOCK)
    assert (blind.name, "as root" in blind.mend) == (None, True)
